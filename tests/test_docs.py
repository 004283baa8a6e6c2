"""Docs that do not run are wrong: Python blocks are executed, command lines parsed, all options described."""

import re
import shlex
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple, get_args

import pytest
import typer

from abdoseg import exporters, tables
from abdoseg.anatomy import ABDOMEN
from abdoseg.annotation import AXES
from abdoseg.cards import list_cards, load_card
from abdoseg.cli import app
from abdoseg.cli._training import parse_settings
from abdoseg.config import PRESETS, TrainConfig, make_config
from abdoseg.errors import AbdosegError
from abdoseg.experiments import list_tables
from abdoseg.methods import METHODS
from abdoseg.metrics import GROUPINGS, METRICS
from abdoseg.networks import NETWORKS
from abdoseg.phantom.write import LAYOUTS
from abdoseg.reviews import ACTIONS
from abdoseg.sampling import SAMPLERS
from abdoseg.sharing import CASE_FORMATS, RUN_FORMATS
from abdoseg.steps.evaluate_folders import Missing
from abdoseg.steps.ingest import ingest
from abdoseg.store import Workspace
from abdoseg.types import SplitName
from abdoseg.views import FULL_VIEW

ROOT = Path(__file__).parents[1]
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
BLOCKS = [
    pytest.param(block, id=f"{page.name}-{i}")
    for page in PAGES
    for i, block in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL))
]
CARDS = [
    block
    for page in PAGES
    for block in re.findall(r"```toml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    if "[[layouts]]" in block
]


@pytest.mark.parametrize("block", BLOCKS)
def test_python_blocks_run(block, tmp_path, word_source, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ingest(Workspace.create("workspace"), load_card("word"), word_source)
    exec(compile(block, "docs", "exec"), {})


@pytest.mark.parametrize("block", CARDS)
def test_cards_in_docs_are_sound(block, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(block)
    assert load_card(str(path)).annotated


def test_there_are_blocks_to_test():
    assert len(BLOCKS) >= 2
    assert CARDS


def test_every_command_and_option_is_described():
    text = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    for path, command in all_commands().items():
        assert not path or f"`abdoseg {path}`" in text, f"docs/commands.md lacks {path}; `nox -s docs` writes it"
        for option in options_of(command):
            assert option in text or not option.startswith("--"), (
                f"docs/commands.md lacks {path} {option}; `nox -s docs` writes it"
            )


def test_settings_named_in_the_docs_are_there():
    named = {name for page in PAGES for name in re.findall(r"--set '?([a-z_]+)", page.read_text(encoding="utf-8"))}
    rows = re.findall(r"^\| (?:memory|speed|another optimum|the authors' code) \|.*$", training_page(), re.MULTILINE)
    assert len(rows) == 4
    named |= {name for row in rows for name in re.findall(r"`([a-z_]+)[=`]", row)}
    assert named - set(TrainConfig.model_fields) == set()


def training_page() -> str:
    return (ROOT / "docs" / "training.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target}"


# -- command lines -----------------------------------------------------------------------------------------------------

ABDOSEG = typer.main.get_command(app)
UsageError = typer.BadParameter.__base__  # Typer's own, or click's for an older Typer

_SIDES = (*get_args(SplitName), "all")
_STRUCTURES = (*ABDOMEN.names, "all")
_CARDS = ("nnunet", *(name for card in list_cards() for name in (card.id, card.alias) if name))
CHOICES = {
    "absent": ("skip", "score"),
    "by": GROUPINGS,
    "card": _CARDS,
    "decide": ACTIONS,
    "fill_holes": _STRUCTURES,
    "largest": _STRUCTURES,
    "method": METHODS,
    "metrics": METRICS,
    "min_ml": _STRUCTURES,
    "missing": get_args(Missing),
    "modality": ("ct", "mr", "CT", "MR"),
    "network": NETWORKS,
    "one_sided": ("skip", "diagonal"),
    "preset": PRESETS,
    "sampler": SAMPLERS,
    "sources": {*_CARDS, *LAYOUTS},
    "split": _SIDES,
    "structures": _STRUCTURES,
    "to": (*RUN_FORMATS, *CASE_FORMATS),
    "tolerance": _STRUCTURES,
    "weights": ("gaussian", "constant"),
    "eval format_": ("table", "json", *tables.FORMATS),
    "list what": ("networks", "methods", "samplers", "presets", "settings"),
    "predict format_": exporters.FORMATS,
    "reproduce table": list_tables(),
    "sparsify view": (*AXES, FULL_VIEW),
}
"""Parameter, or command and parameter -> the names it takes; to Typer these are plain texts."""

# What may stand before a command: a prompt, a variable, what starts it elsewhere, later or several times, a folder.
BEFORE = re.compile(
    r"(\$ )?([A-Z_]+=\S+ )*(srun (--\S+ (\d+ )?)*|torchrun .* -m |ssh .* |(\S+ +){5})?(\S*/)?(?=abdoseg )"
)

OF_OTHERS = {"--group", "--gpus-per-node", "--gpus-per-task"}
"""Options of other programs that stand alone in a sentence."""


class Command(NamedTuple):
    """A command of the docs: where it stands, its words after ``abdoseg``, and whether it can be typed as it is."""

    where: str
    words: list[str]
    whole: bool


def commands_of(name: str, text: str) -> list[Command]:
    """Return the command lines of a page, and the commands within its sentences."""
    found: list[Command] = []
    block: list[tuple[int, str]] = []
    sentences, fenced = [], False
    for number, line in enumerate([*text.splitlines(), "The end."], start=1):
        fence = line.lstrip().startswith("```")
        fenced ^= fence
        is_code = fenced or fence or line.startswith("    ")
        if fence or (line.strip() and not is_code):
            found += typed_in(block, name)
            block = []
        elif is_code:
            block.append((number, line.strip()))
        sentences.append("" if is_code else line.replace(r"\|", "|"))
    return found + said_in("\n".join(sentences), name)


def typed_in(block: list[tuple[int, str]], page: str) -> list[Command]:
    """Return the commands of a code block; where some lines have a prompt, the others are output."""
    found, prompts = [], any(line.startswith("$ ") for _, line in block)
    begun, first = "", 0
    for number, line in block:
        first = first if begun else number
        text, begun = begun + line, ""
        if text.endswith("\\"):
            begun = text[:-1]
            continue
        before = BEFORE.match(text)
        if before and (text.startswith("$ ") or not prompts):
            found.append(Command(f"{page}:{first}", words_of(text[before.end() :])[1:], whole=True))
    return found


def words_of(text: str) -> list[str]:
    """Return the words of the first command in a line for a shell."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars="|;&<>")
    lexer.whitespace_split = True
    return [*takewhile(lambda word: word[0] not in "|;&<>", lexer)]


def said_in(text: str, page: str) -> list[Command]:
    """Return the commands in backticks: ``abdoseg eval``, ``train --dry-run``, or options alone, ``--by dataset``."""
    found = []
    for match in re.finditer(r"(?<!`)`\s*([^`\s][^`]*)`(?!`)", text):
        words = words_of(match[1]) if "--" in match[1] else match[1].split()
        has_option = any(word.startswith("--") for word in words) and words[0] not in OF_OTHERS
        if words[0] == "abdoseg" or (has_option and (words[0][0] == "-" or words[0] in ABDOSEG.commands)):
            line = text[: match.start()].count("\n") + 1
            found.append(Command(f"{page}:{line}", words[words[0] == "abdoseg" :], whole=False))
    return found


def all_commands(command: Any = ABDOSEG, path: str = "") -> dict[str, Any]:
    """Return path -> command for all that can be typed after ``abdoseg``, itself too."""
    found = {path: command}
    for name, child in getattr(command, "commands", {}).items():
        found |= all_commands(child, f"{path} {name}".strip())
    return found


def options_of(command: Any) -> set[str]:
    """Return the options of a command."""
    return {name for p in command.params for name in (*p.opts, *getattr(p, "secondary_opts", ()))} | {"--help"}


def lenient() -> Any:
    """Return the command line with nothing required."""
    root = typer.main.get_command(app)
    for command in all_commands(root).values():
        for parameter in command.params:
            parameter.required = False
    return root


LENIENT = lenient()


def fault_of(command: Command) -> str | None:
    """Return why a command would be refused before it reads a file; ``None`` if it would not."""
    at, path, words = ABDOSEG if command.whole else LENIENT, "", list(command.words)
    while words and words[0] in getattr(at, "commands", ()):
        path = f"{path} {words[0]}".strip()
        at = at.commands[words.pop(0)]
    if hasattr(at, "commands") and words and not words[0].startswith("-"):
        return None if words[0].isupper() else f"no command {words[0]}"
    # Options alone are of some command.
    possible = {path: at} if path or not words else all_commands(at)
    faults = [fault_of_options(one, path, words, whole=command.whole) for path, one in possible.items()]
    return None if None in faults else max(faults, key=len)


def fault_of_options(command: Any, path: str, words: list[str], *, whole: bool) -> str | None:
    """Return which option a command does not have, or what is wrong with its values."""
    known = options_of(command)
    strange = [word for word in words if word.startswith("--") and word.partition("=")[0] not in known]
    if strange:
        return f"no option {strange[0]}"
    parent = ABDOSEG.context_class(ABDOSEG, info_name="abdoseg")
    try:
        given = command.make_context(path, [*words], parent=parent).params
    except typer.Exit:
        return None  # --help
    except UsageError as error:
        # In a sentence a value may be left out, or stand for any.
        open_ = not whole and (not words or words[-1].startswith("-") or any(word.isupper() for word in words))
        return None if open_ else error.format_message() or repr(error)
    except AbdosegError as error:
        return str(error)
    # Settings in a sentence are looked for above; their values may need a method that is not repeated.
    return next(strange_names(path, given), None) or (fault_of_settings(given) if whole else None)


def strange_names(path: str, given: dict[str, Any]) -> Iterator[str]:
    """Give the values that no part of the package has; words in capitals and the user's own files are not names."""
    for key, value in given.items():
        choices = CHOICES.get(f"{path} {key}", CHOICES.get(key))
        if choices is None or value is None:
            continue
        texts = [value] if isinstance(value, str) else [str(v) for v in value]
        for name in (part.partition("=")[0].strip() for text in texts for part in text.split(",")):
            if name not in choices and not name.isupper() and not name.endswith(".toml"):
                yield f"{key} {name}; expected one of {', '.join(choices)}"


def fault_of_settings(given: dict[str, Any]) -> str | None:
    """Return what is wrong with the settings of a training."""
    if "settings" not in given:
        return None
    options = {k: given.get(k) for k in ("network", "method", "sampler", "steps", "seed", "start_from")}
    options = {k: value for k, value in options.items() if not str(value).isupper()}
    try:
        make_config(given.get("preset") or "paper", {**parse_settings(given["settings"]), **options})
    except AbdosegError as error:
        return str(error)
    return None


@pytest.mark.parametrize("page", [p for p in PAGES if p.name != "commands.md"], ids=lambda page: page.name)
def test_commands_in_the_docs_are_understood(page):
    commands = commands_of(page.name, page.read_text(encoding="utf-8"))
    faults = [f"{c.where}: abdoseg {shlex.join(c.words)}: {fault}" for c in commands if (fault := fault_of(c))]
    assert not faults, "\n".join(faults)


def test_commands_are_found():
    """All kinds of lines are seen, whole and no more of them."""
    text = """
    A=1 abdoseg status | head -3
    srun --ntasks 8 abdoseg predict /data \\
        -o out
    */10 * * * *  abdoseg status -w /w; echo abdoseg none

Words, `train --dry-run`, `--by dataset`, `made --by hand`, `abdoseg COMMAND
--help`.

    $ .venv/bin/abdoseg status  # a comment
    abdoseg says this itself

```console
ssh -L 1:h:1 server abdoseg view a/b --no-open
torchrun --nnodes 2 -m abdoseg train --set 'flip=[0, 0.5, 0]'
```
"""
    assert [(c.where, shlex.join(c.words), c.whole) for c in commands_of("page", text)] == [
        ("page:2", "status", True),
        ("page:3", "predict /data -o out", True),
        ("page:5", "status -w /w", True),
        ("page:10", "status", True),
        ("page:14", "view a/b --no-open", True),
        ("page:15", "train --set 'flip=[0, 0.5, 0]'", True),
        ("page:7", "train --dry-run", False),
        ("page:7", "--by dataset", False),
        ("page:7", "COMMAND --help", False),
    ]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("abdoseg trian", "no command trian"),
        ("abdoseg cards drafft", "no command drafft"),
        ("abdoseg train --stps 3", "no option --stps"),
        ("abdoseg train --steps many", "integer"),
        ("abdoseg train --steps 0", "--steps"),
        ("abdoseg train --set learning_rte=1", "learning_rte"),
        ("abdoseg train --set batch=0", "batch"),
        ("abdoseg train --method pseudo_label", "needs a finished run"),
        ("abdoseg train --device gpu", "gpu"),
        ("abdoseg export --to onnx", "Missing"),
        ("abdoseg predict scan.nii.gz -o a.nii.gz --structures liver,spleeen", "spleeen"),
        ("abdoseg eval --by case", "case"),
        ("abdoseg eval --format html", "html"),
        ("abdoseg ingest wordd FOLDER", "wordd"),
        ("abdoseg ingest word FOLDER --split-crossing maybe", "maybe"),
        ("abdoseg sparsify --view oblique", "oblique"),
        ("abdoseg status now", "now"),
        ("abdoseg train -x", "-x"),
    ],
)
def test_a_wrong_command_is_told(line, told):
    (command,) = typed_in([(1, line)], "page")
    assert told in fault_of(command)


@pytest.mark.parametrize(
    "text", ["--steps 3", "train --steps", "train --steps N", "abdoseg export --to h5", "abdoseg", "--split val"]
)
def test_a_part_of_a_command_may_stand_in_a_sentence(text):
    (command,) = said_in(f"as in `{text}`", "page")
    assert fault_of(command) is None


@pytest.mark.parametrize(
    "text", ["--stps 3", "train --stps", "abdoseg trian", "abdoseg list weights", "--split vall", "--to h6"]
)
def test_a_wrong_name_may_not(text):
    (command,) = said_in(f"as in `{text}`", "page")
    assert fault_of(command)
