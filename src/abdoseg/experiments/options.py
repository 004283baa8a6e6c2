"""How an experiment is run here: the options of ``abdoseg reproduce``, and how far they are from the paper."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from abdoseg.config import CHANGEABLE, PRESETS, TrainConfig, make_config
from abdoseg.errors import ConfigError, unknown_name
from abdoseg.experiments.model import GIVEN_ELSEWHERE, Experiment
from abdoseg.methods import METHODS, OWN_SETTINGS
from abdoseg.networks import NETWORKS
from abdoseg.sampling import SAMPLERS

PAPER = "paper"
"""The preset that the paper's experiments are changes of."""

_GIVEN_BY = {
    "preset": "--preset",
    "network": "--network",
    "seed": "--seeds",
    "sources": "--sources-at-hand",
    "view": "the experiment",
    "method": "the experiment",
    "sampler": "the experiment",
}
_TOLD_APART = GIVEN_ELSEWHERE | CHANGEABLE
_TABLES: dict[str, Mapping[str, object]] = {"method": METHODS, "network": NETWORKS, "sampler": SAMPLERS}


@dataclass(frozen=True)
class Options:
    """How experiments are run.

    Parameters
    ----------
    scale
        Factor on the steps, and on how often is validated.
    preset
        What the experiments' settings are changes of.
    network
        In place of each experiment's own; ``None``: their own.
    settings
        Settings in place of the preset's; what an experiment sets itself stays.
    seeds
        One training of each experiment for each.
    sources_at_hand
        Whether an experiment may run without some of its sources.

    Raises
    ------
    ConfigError, UnknownNameError
        If a value is not allowed.
    """

    scale: float = 1.0
    preset: str = PAPER
    network: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0,)
    sources_at_hand: bool = False

    def __post_init__(self) -> None:
        if not (0 < self.scale < math.inf):
            raise ConfigError(f"scale: found {self.scale}, expected a number above 0, such as 0.01")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise ConfigError(f"seeds: found {list(self.seeds)}, expected different numbers of at least 0")
        if self.preset not in PRESETS:
            raise unknown_name("preset", self.preset, list(PRESETS))
        if self.network is not None and self.network not in NETWORKS:
            raise unknown_name("network", self.network, list(NETWORKS), "See `abdoseg list networks`.")
        for key in self.settings:
            if key in _GIVEN_BY:
                raise ConfigError(f"--set {key}: is given by {_GIVEN_BY[key]}; leave it out")
            if key not in TrainConfig.model_fields:
                raise unknown_name("setting", key, list(TrainConfig.model_fields))

    @property
    def name(self) -> str:
        """Name of a folder for what these options give; other options have another."""
        parts = [self.preset, *([self.network] if self.network else [])]
        parts += [f"x{self.scale:g}"] if self.scale != 1 else []
        parts += [f"seeds-{'-'.join(map(str, self.seeds))}"] if self.seeds != (0,) else []
        if self.settings:
            facts = json.dumps(dict(self.settings), sort_keys=True, default=str)
            parts.append(f"set-{hashlib.sha256(facts.encode()).hexdigest()[:8]}")
        return "-".join([*parts, *(["at-hand"] if self.sources_at_hand else [])])

    def config(self, experiment: Experiment, seed: int, sources: tuple[str, ...]) -> TrainConfig:
        """Return the configuration of an experiment's training.

        Parameters
        ----------
        experiment
            What to train.
        seed
            One of ``seeds``.
        sources
            Those of its sources to learn from; empty: all of the workspace.

        Raises
        ------
        ConfigError
            If a value is not allowed.
        """
        own = self._own(experiment)
        common = {key: value for key, value in self.settings.items() if _means_something(key, own)}
        facts = {**PRESETS[self.preset], **common}
        known = TrainConfig.model_fields
        steps = {key: facts.get(key, known[key].default) for key in ("steps", "validate_every", "learning_rate_every")}
        scaled = {
            "steps": _scaled(steps["steps"], self.scale * experiment.steps_factor),
            "validate_every": _scaled(steps["validate_every"], self.scale),
            "learning_rate_every": _scaled(steps["learning_rate_every"], self.scale),
        }
        given = {"seed": seed, "view": experiment.view_name, "sources": sources}
        return make_config(self.preset, {**common, **scaled, **own, **given})

    def _own(self, experiment: Experiment) -> dict[str, Any]:
        own = dict(experiment.settings)
        if self.preset == PAPER and self.network in (None, own.get("network")):
            own |= experiment.paper_settings
        return own | ({"network": self.network} if self.network else {})

    def kept(self, experiment: Experiment) -> list[str]:
        """Return which settings of ``settings`` the experiment does not take because it sets them itself, in words."""
        own = self._own(experiment)
        both = [key for key in self.settings if key in own and own[key] != self.settings[key]]
        return [f"{key} stays {shown(own[key])} in spite of --set: it is what the row is about" for key in both]

    def differences(self, experiment: Experiment, config: TrainConfig) -> list[str]:
        """Return how a configuration differs from the paper's of this experiment, a line a setting.

        Settings that change no weights, the seed, the sources and the view are not among them.
        """
        paper = {**experiment.settings, **experiment.paper_settings}
        network = str(paper.get("network", TrainConfig.model_fields["network"].default))
        # A network that is not known yet could not be validated, and one that is replaced need not be known.
        reference = make_config(PAPER, {**paper, "network": config.network}).model_dump(mode="json")
        reference |= {"network": network, "steps": _scaled(reference["steps"], experiment.steps_factor)}
        found = config.model_dump(mode="json")
        return [
            f"{key} {shown(found[key])} (paper: {shown(reference[key])})"
            for key in TrainConfig.model_fields
            if key not in _TOLD_APART and found[key] != reference[key]
        ]


def missing_names(experiment: Experiment, network: str | None) -> list[str]:
    """Return which method, network or sampler of an experiment this version does not have, in words.

    Parameters
    ----------
    experiment
        What is to be run.
    network
        The network in place of its own, if any.
    """
    named = {**experiment.settings, **({"network": network} if network else {})}
    return [
        f"{kind} {named[kind]} is not in this version"
        for kind, known in _TABLES.items()
        if kind in named and named[kind] not in known
    ]


def _scaled(steps: int, factor: float) -> int:
    """Return so many times the steps, rounded, at least 1; 0 stays 0 (never)."""
    return max(1, math.floor(steps * factor + 0.5)) if steps else 0


def _means_something(key: str, own: Mapping[str, Any]) -> bool:
    """Whether the method of an experiment has this setting; those of one method would be refused by the others."""
    method = own.get("method", TrainConfig.model_fields["method"].default)
    return key not in OWN_SETTINGS or key in METHODS[method].settings


def shown(value: object) -> str:
    """Return the value of a setting, for people."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        sides = all(isinstance(part, int) for part in value)
        return ("x" if sides else ", ").join(map(shown, value)) or "none"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:g}" if isinstance(value, float) else str(value)
