"""The recipe of the whole story: train a filtering network, filter, train on the subset, evaluate, compare.

Its stages are recipes of their own; what one stage makes and the next one takes is filled in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from dfn_ray.config.checks import STRICT, Target
from dfn_ray.config.evaluation import EvaluateRecipe
from dfn_ray.config.filtering import Network, Pool, Recipe
from dfn_ray.config.load import R, recipe_from, recipe_values
from dfn_ray.config.training import TrainRecipe
from dfn_ray.errors import RecipeError

Arm = Literal["dfn", "pool", "random", "rules"]
"""What a model is trained on: the DFN's subset; the whole pool; as many samples of it at random; what metadata rules keep."""
Section = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class PipelineRecipe:
    """The whole story as one resumable run."""

    __pydantic_config__ = STRICT

    run_uri: Target
    """Every stage has a folder in it: dfn/, filter/, train/<arm>/seed-<n>/, ..."""
    pool: Pool
    """To be filtered."""
    train: Section
    """[train]: as in `dfn-ray train`, without run_uri, sources and seed."""
    evaluate: Section
    """[evaluate]: as in `dfn-ray evaluate`, without run_uri and network."""
    dfn: Section | None = None
    """[dfn]: trains the filtering network, as in `dfn-ray train` without run_uri. None: `filter.networks` names it."""
    filter: Section = field(default_factory=dict)
    """[filter]: as in `dfn-ray filter`, without run_uri, pool and (where [dfn] trains it) networks."""
    rules: Section = field(default_factory=dict)
    """[rules] of the arm "rules": the samples that pass are its subset."""
    arms: tuple[Arm, ...] = ("dfn", "pool")
    """What to train on and compare, at equal samples seen."""
    evaluate_at_samples: tuple[int, ...] = ()
    """Models are also evaluated as they are after these many samples seen, while they are trained."""
    seeds: tuple[int, ...] = (0,)
    """Models trained on each arm; the mean over seeds is compared, and the spread shown."""

    def __post_init__(self) -> None:
        if "dfn" not in self.arms:
            raise ValueError('arms: need "dfn" among them, got ' + (", ".join(self.arms) or "none"))
        if not self.seeds:
            raise ValueError("seeds: need at least one, got none")
        if "rules" in self.arms and not self.rules:
            raise ValueError('rules: the arm "rules" needs some, got none')
        network = Network(model=f"local-dir:{self.uri('dfn', 'network')}")
        if self.dfn is not None:
            self.dfn_recipe()
        self.filter_recipe(network if self.dfn is not None else None)
        if "rules" in self.arms:
            self.rules_recipe(network if self.dfn is not None else None)
        self.train_recipe("dfn", self.seeds[0], {"pool": {"uri": "subset"}})
        self.evaluate_recipe("dfn", self.seeds[0], network)

    def uri(self, *parts: str) -> str:
        """The URI of a file or folder of the run."""
        return "/".join((self.run_uri.rstrip("/"), *parts))

    def dfn_recipe(self) -> TrainRecipe:
        """How the filtering network is trained."""
        return self._stage("dfn", TrainRecipe, {"run_uri": self.uri("dfn")})

    def filter_recipe(self, network: Network | None) -> Recipe:
        """How the pool is filtered; `network` is the one that [dfn] trained."""
        return self._stage("filter", Recipe, self._filtering("filter", network))

    def rules_recipe(self, network: Network | None) -> Recipe:
        """How the arm "rules" gets its subset: by rules alone, with a threshold that no score misses."""
        instead = {"rules": self.rules, "select": {"threshold": -1.0}}
        return self._stage("filter", Recipe, self._filtering("rules", network), instead=instead)

    def train_recipe(self, arm: str, seed: int, source: Section) -> TrainRecipe:
        """How a model is trained on an arm's samples."""
        filled = {"run_uri": self.uri("train", arm, f"seed-{seed}"), "seed": seed}
        checkpoints = {
            **self.train.get("checkpoints", {}),
            "export_at_samples": self.evaluate_at_samples,
        }
        instead: dict[str, Any] = {"checkpoints": checkpoints}
        if "random_weights_seed" in (model := self.train.get("model", {})):
            instead["model"] = {**model, "random_weights_seed": seed}
        return self._stage("train", TrainRecipe, {**filled, "sources": [source]}, instead=instead)

    def evaluate_recipe(
        self, arm: str, seed: int, network: Network, *, at_samples: int | None = None
    ) -> EvaluateRecipe:
        """How that model is evaluated; arm "network" is the filtering network itself."""
        run_uri = self.uri("train", arm, f"seed-{seed}") if arm != "network" else self.uri("dfn")
        if at_samples is not None:
            run_uri += f"/at-{at_samples:012d}"
        model = {"model": network.model, "name": network.name}
        return self._stage("evaluate", EvaluateRecipe, {"run_uri": run_uri, "network": model})

    def _filtering(self, folder: str, network: Network | None) -> dict[str, Any]:
        filled: dict[str, Any] = {"run_uri": self.uri(folder), "pool": recipe_values(self.pool)}
        if network is not None:
            filled["networks"] = [{"model": network.model, "name": network.name}]
        return filled

    def _stage(
        self, name: str, kind: type[R], filled: Section, *, instead: Section | None = None
    ) -> R:
        """The recipe of a stage; its mistakes are named under the stage's section."""
        section: dict[str, Any] = {**(getattr(self, name) or {})}
        twice = [f"{name}.{key}: is filled in by the pipeline" for key in filled if key in section]
        if twice:
            raise RecipeError(twice)
        try:
            return recipe_from({**section, **(instead or {}), **filled}, kind=kind)
        except RecipeError as error:
            raise RecipeError([f"{name}.{problem}" for problem in error.problems]) from None
