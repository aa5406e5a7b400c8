"""The recipe of a pipeline, `dfn-ray pipeline`.

Trains a filtering network, filters, trains on the subset, evaluates and compares. Its stages are
recipes of their own; the output of one stage is filled in as the input of the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import field
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from dfn_ray.config.checks import Counts, Target
from dfn_ray.config.evaluation import EvaluateRecipe
from dfn_ray.config.filtering import Recipe
from dfn_ray.config.load import R, recipe_from, recipe_values
from dfn_ray.config.networks import Network
from dfn_ray.config.pool import Pool
from dfn_ray.config.sections import require_rules, section
from dfn_ray.config.training import TrainRecipe
from dfn_ray.errors import RecipeError
from dfn_ray.uris import normalised

Arm = Literal["dfn", "pool", "random", "rules"]
"""Training data of a model: the DFN's subset; the whole pool; a random sample of the pool, of the
size of the subset; the samples that metadata rules keep."""


def _normalised_texts(value: Any) -> Any:
    """A section in which the schemes of URIs are in lower case."""
    if isinstance(value, str):
        return normalised(value)
    if isinstance(value, list):
        return [_normalised_texts(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _normalised_texts(item) for key, item in value.items()}
    return value


Section = Annotated[Mapping[str, Any], AfterValidator(_normalised_texts)]


@section
class PipelineRecipe:
    """A pipeline from a pool to compared models, as one resumable run."""

    run_uri: Target
    """Folder or object prefix of the run. Every stage has a folder in it: dfn/, filter/,
    train/<arm>/seed-<n>/, ..."""
    pool: Pool
    """`[pool]`: the pool to filter."""
    train: Section
    """`[train]`: as in `dfn-ray train`, without run_uri, sources and seed."""
    evaluate: Section
    """`[evaluate]`: as in `dfn-ray evaluate`, without run_uri and network."""
    dfn: Section | None = None
    """`[dfn]`: training of the filtering network, as in `dfn-ray train` without run_uri. None:
    `filter.networks` names the network."""
    filter: Section = field(default_factory=dict)
    """`[filter]`: as in `dfn-ray filter`, without run_uri, pool and (with `[dfn]`) networks."""
    rules: Section = field(default_factory=dict)
    """`[rules]`: metadata rules of the arm "rules", whose subset is the samples that pass."""
    arms: tuple[Arm, ...] = ("dfn", "pool")
    """Training data to compare, at equal samples seen; "dfn" is required."""
    evaluate_at_samples: Counts = ()
    """Numbers of samples seen, each >= 0, after which models are evaluated too while they train."""
    seeds: Annotated[Counts, Field(min_length=1)] = (0,)
    """Seeds, each >= 0: one model per arm and seed. The mean over seeds is compared, and the spread
    shown."""

    def __post_init__(self) -> None:
        require_rules(self._broken_rules())
        if problems := list(dict.fromkeys(self._problems_of_stages())):
            raise RecipeError(problems)

    def _broken_rules(self) -> Iterator[str]:
        if "dfn" not in self.arms:
            yield 'arms: need "dfn" as one of the arms, got ' + (", ".join(self.arms) or "none")
        if "rules" in self.arms and not self.rules:
            yield 'rules: need at least one for the arm "rules", got none'

    def _problems_of_stages(self) -> Iterator[str]:
        network = Network(model=f"local-dir:{self.uri('dfn', 'network')}")
        trained = network if self.dfn is not None else None
        stages: list[Callable[[], object]] = [
            lambda: self.filter_recipe(trained),
            lambda: self.train_recipe("dfn", self.seeds[0], {"pool": {"uri": "subset"}}),
            lambda: self.evaluate_recipe("dfn", self.seeds[0], network),
        ]
        if self.dfn is not None:
            stages.insert(0, self.dfn_recipe)
        if self.rules:
            stages.append(lambda: self.rules_recipe(trained))
        for stage in stages:
            try:
                stage()
            except RecipeError as error:
                yield from error.problems

    def uri(self, *parts: str) -> str:
        """The URI of a file or folder of the run."""
        return "/".join((self.run_uri.rstrip("/"), *parts))

    def dfn_recipe(self) -> TrainRecipe:
        """The recipe that trains the filtering network."""
        return self._stage("dfn", TrainRecipe, {"run_uri": self.uri("dfn")})

    def filter_recipe(self, network: Network | None) -> Recipe:
        """The recipe that filters the pool; `network` is the one that [dfn] trained."""
        return self._stage("filter", Recipe, self._filtering("filter", network))

    def rules_recipe(self, network: Network | None) -> Recipe:
        """The recipe of arm "rules": its rules alone, with a threshold below all scores."""
        instead = {"rules": self.rules, "select": {"threshold": -1.0}}
        filled = self._filtering("rules", network)
        return self._stage("filter", Recipe, filled, instead=instead, own=("rules",))

    def train_recipe(self, arm: str, seed: int, source: Section) -> TrainRecipe:
        """The recipe that trains a model on an arm's samples."""
        filled = {"run_uri": self.uri("train", arm, f"seed-{seed}"), "seed": seed}
        # A section that is no table is left for validation to report.
        instead: dict[str, Any] = {}
        if isinstance(checkpoints := self.train.get("checkpoints", {}), Mapping):
            exports = {"export_at_samples": self.evaluate_at_samples}
            instead["checkpoints"] = {**checkpoints, **exports}
        model = self.train.get("model")
        if isinstance(model, Mapping) and "random_weights_seed" in model:
            instead["model"] = {**model, "random_weights_seed": seed}
        return self._stage("train", TrainRecipe, {**filled, "sources": [source]}, instead=instead)

    def evaluate_recipe(
        self, arm: str, seed: int, network: Network, *, at_samples: int | None = None
    ) -> EvaluateRecipe:
        """The recipe that evaluates that model; arm "network" is the filtering network itself."""
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
        self,
        name: str,
        kind: type[R],
        filled: Section,
        *,
        instead: Section | None = None,
        own: tuple[str, ...] = (),
    ) -> R:
        """The recipe of a stage. Its mistakes are reported under the name of its section.

        `own` are the settings in `instead` that are sections of the pipeline itself.
        """
        section: dict[str, Any] = {**(getattr(self, name) or {})}
        twice = [
            f"{name}.{key}: is set by the pipeline itself; remove it"
            for key in filled
            if key in section
        ]
        if twice:
            raise RecipeError(twice)
        try:
            return recipe_from({**section, **(instead or {}), **filled}, kind=kind)
        except RecipeError as error:
            raise RecipeError(
                [
                    problem if problem.startswith(own) else f"{name}.{problem}"
                    for problem in error.problems
                ]
            ) from None
