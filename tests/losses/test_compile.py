"""What torch.compile gets: the plain implementation, in one graph."""

import pytest
import torch

from abdoseg.losses import disambiguation_loss

from .inputs import draw


@pytest.mark.filterwarnings("ignore")  # the compiler's own
@pytest.mark.parametrize("groups", [1, 3])
def test_compiled_equals_plain(groups):
    """No graph break: tracing takes ``plain``, also where ``auto`` would take the fused kernel."""
    logits, *rest = draw(batch=1, groups=groups).tensors(torch.float32)
    compiled = torch.compile(disambiguation_loss, fullgraph=True, backend="aot_eager")
    found = compiled(logits, *rest, validate=False)
    found.backward()
    gradient, logits.grad = logits.grad, None
    expected = disambiguation_loss(logits, *rest, implementation="plain")
    expected.backward()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradient, logits.grad)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_compiled_to_machine_code_equals_plain():
    """With PyTorch's own backend, which needs a C++ compiler."""
    logits, *rest = draw(batch=1).tensors(torch.float32)
    compiled = torch.compile(disambiguation_loss)
    found = compiled(logits, *rest, validate=False)
    torch.testing.assert_close(found, disambiguation_loss(logits, *rest, implementation="plain"))
