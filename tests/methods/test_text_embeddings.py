"""Text embeddings from files, from CLIP, and rubbish."""

import re
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from abdoseg.anatomy import ABDOMEN
from abdoseg.errors import ConfigError
from abdoseg.methods import text_embeddings
from abdoseg.methods.assemble import build_model, method_for
from abdoseg.methods.task import Task
from abdoseg.methods.text_embeddings import PROMPT, at_hand, read_embeddings

NAMES = ABDOMEN.names


def written(path, matrix):
    if path.suffix == ".npy":
        np.save(path, matrix.numpy())
    elif path.suffix == ".safetensors":
        save_file({"text": matrix}, path)
    else:
        torch.save(matrix, path)
    return str(path)


@pytest.mark.parametrize("suffix", [".npy", ".safetensors", ".pt", ".pth"])
def test_a_row_for_each_structure(tmp_path, suffix):
    matrix = torch.randn(3, 512)
    found = read_embeddings(written(tmp_path / f"text{suffix}", matrix), NAMES[:3])
    torch.testing.assert_close(found, matrix)


def test_the_published_rows_are_chosen_by_name(tmp_path):
    published = torch.arange(32.0)[:, None].expand(32, 512).contiguous().half()
    path = written(tmp_path / "txt_encoding.pth", published)
    rows = dict(zip(NAMES, [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 20, 21, 9], strict=True))
    assert read_embeddings(path, NAMES)[:, 0].tolist() == list(rows.values())
    some = ("aorta", "bladder", "portal_splenic_vein", "spleen")
    assert read_embeddings(path, some)[:, 0].tolist() == [rows[name] for name in some]
    with pytest.raises(ConfigError, match="its 32 rows have none for appendix"):
        read_embeddings(path, ("spleen", "appendix"))


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("none.npy", lambda _: None, "No such file"),
        ("text.csv", lambda p: p.write_text("1,2"), "an unknown kind of file; expected a .npy"),
        ("text.npy", lambda p: p.write_bytes(b"rubbish"), "expected a .npy, .safetensors or .pt file"),
        ("text.safetensors", lambda p: p.write_bytes(b"rubbish"), "expected a .npy, .safetensors or .pt file"),
        ("text.pt", lambda p: p.write_bytes(b"rubbish"), "expected a .npy, .safetensors or .pt file"),
        ("text.pt", lambda p: p.write_bytes(b""), "expected a .npy, .safetensors or .pt file"),
        ("objects.npy", lambda p: np.save(p, np.array([{}]), allow_pickle=True), "expected a .npy"),
        ("narrow.npy", lambda p: np.save(p, np.zeros((2, 256))), r"found (2, 256), expected (2, 512)"),
        ("few.npy", lambda p: np.save(p, np.zeros((1, 512))), r"found (1, 512), expected (2, 512)"),
        ("nan.npy", lambda p: np.save(p, np.full((2, 512), np.nan)), r"found (2, 512) with NaN"),
        ("cube.npy", lambda p: np.save(p, np.zeros((2, 2, 2))), "expected one matrix"),
    ],
)
def test_rubbish_is_refused_in_one_line(tmp_path, name, write, message):
    path = tmp_path / name
    write(path)
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        read_embeddings(str(path), NAMES[:2])
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def tiny_clip(folder):
    """Save a CLIP text encoder of one small layer, with a tokenizer that knows single letters."""
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

    folder.mkdir()
    letters = [chr(n) for n in range(97, 123)]
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{c}</w>" for c in letters)]
    (folder / "vocab.json").write_text(str({w: i for i, w in enumerate(words)}).replace("'", '"'))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    config = CLIPTextConfig(
        vocab_size=len(words), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        projection_dim=512, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    model = CLIPTextModelWithProjection(config).eval()
    model.save_pretrained(folder)
    return model


@pytest.mark.filterwarnings("ignore")
def test_clip_makes_them_of_the_prompts(tmp_path):
    from transformers import AutoTokenizer

    model = tiny_clip(tmp_path / "clip")
    found = read_embeddings(str(tmp_path / "clip"), ("spleen", "aorta"))
    tokenizer = AutoTokenizer.from_pretrained(str(tmp_path / "clip"))
    for row, name in zip(found, ("spleen", "aorta"), strict=True):
        title = ABDOMEN.structure(ABDOMEN.id_of(name)).title
        with torch.no_grad():
            expected = model(**tokenizer([PROMPT.format(title)], return_tensors="pt")).text_embeds[0]
        torch.testing.assert_close(row, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found[0], found[1])


@pytest.mark.filterwarnings("ignore")
def test_a_folder_without_clip_and_no_download(tmp_path):
    with pytest.raises(ConfigError, match=r"is not on this machine .*; give a file or a folder"):
        read_embeddings(str(tmp_path), NAMES)


@pytest.mark.filterwarnings("ignore")
def test_what_is_at_hand_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(text_embeddings, "_CLIP_MODEL", str(tmp_path / "clip"))
    assert at_hand(NAMES) == "learned"
    tiny_clip(tmp_path / "clip")
    assert at_hand(NAMES) == "clip"
    (tmp_path / "clip" / "model.safetensors").unlink()  # a download that was broken off
    assert at_hand(NAMES) == "learned"
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert at_hand(NAMES) == "learned"


def test_a_fresh_model_takes_them_and_keeps_them(tmp_path):
    matrix = torch.randn(3, 512)
    task = Task(NAMES[:3], text_embeddings=written(tmp_path / "text.npy", matrix))
    torch.manual_seed(0)
    model = build_model("unet_small", "clip_driven", task)
    before = model.controller.embeddings().clone()
    told = method_for("unet_small", "clip_driven").prepare(model, task)
    assert told == f"text embeddings: from {tmp_path / 'text.npy'}"
    assert torch.equal(model.state_dict()["controller.text"], matrix)
    assert not torch.allclose(model.controller.embeddings(), before)
    learned = build_model("unet_small", "clip_driven", Task(NAMES[:3]))
    assert "a learned table" in method_for("unet_small", "clip_driven").prepare(learned, Task(NAMES[:3]))
