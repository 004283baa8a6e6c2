"""The Triton kernel: its numbers in Triton's interpreter, and that it compiles for a GPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from abdoseg.losses import disambiguation_terms

from .inputs import draw

triton = pytest.importorskip("triton", reason="Triton is not installed; `nox -s triton` has it")


def test_in_the_interpreter():
    cases = Path(__file__).with_name("triton_interpreted.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", cases]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout


def test_on_a_cpu_it_is_refused():
    with pytest.raises(ValueError, match=r"'triton': it runs on a CUDA GPU .* logits are on cpu; choose 'auto' or"):
        disambiguation_terms(*draw().tensors(torch.float32), implementation="triton")


@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")
@pytest.mark.parametrize(("kernel", "dtype"), [("_sum", "bf16"), ("_gradient", "fp32")])
def test_it_compiles_for_a_gpu(kernel, dtype):
    """To machine code, though no GPU is at hand; logits side by side are read by wide instructions."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from abdoseg.kernels import ambiguity_triton

    pointers = {"logits": dtype, "gradient": dtype, "label": "u8", "group": "i16", "merged": "i32", "tables": "i64"}
    floats = ("by_tile", "by_scalars", "by_tables")
    names = getattr(ambiguity_triton, kernel).arg_names
    constants = {"CLASSES": 32, "stride_z": 1}
    types = {n: f"*{pointers.get(n, 'fp32')}" if n in pointers or n in floats else "i32" for n in names}
    types.update(dict.fromkeys(constants, "constexpr"))
    aligned = [i for i, n in enumerate(names) if types[n].startswith("*") or n[0] in "XYZ" or n.startswith("stride")]
    source = ASTSource(
        fn=getattr(ambiguity_triton, kernel),
        signature=types,
        constexprs=constants,
        attrs={(i,): [["tt.divisibility", 16]] for i in aligned if types[names[i]] != "constexpr"},
    )
    program = triton.compile(source, target=GPUTarget("cuda", 80, 32)).asm
    assert program["cubin"]
    assert "ld.global.v4" in program["ptx"]
