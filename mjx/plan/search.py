"""Which mesh, how many microbatches, and what to recompute: found by closed forms, proven by compiling."""

import concurrent.futures
import dataclasses
import itertools
from collections.abc import Callable, Iterator
from typing import Any

from mjx.config import RunConfig
from mjx.errors import InputError
from mjx.models.common.parameter import logical_axes_of, parameters_of
from mjx.models.family import abstract_model
from mjx.plan.apart import CompilerDiedError, plan
from mjx.plan.estimate import Estimate, estimate
from mjx.plan.read_step import Plan
from mjx.plan.request import PlanRequest
from mjx.trees import flatten
from mjx.words import divisors

Overrides = tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Candidate:
    """One way to run a recipe."""

    overrides: Overrides
    """That make it of the recipe."""
    mesh: dict[str, int]
    microbatches: int
    remat: str
    estimate: Estimate


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """A candidate that was compiled."""

    candidate: Candidate
    plan: Plan | None
    """None: its compiler ended its process."""
    failure: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Search:
    """What was found."""

    candidates: tuple[Candidate, ...]
    """All that divide, by estimated time."""
    results: tuple[Result, ...]
    """Those that were compiled: what fits first, by the compiled step's estimated time."""

    @property
    def fitting(self) -> tuple[Candidate, ...]:
        """Those that fit by the closed form."""
        return tuple(c for c in self.candidates if c.estimate.fits)

    def to_tree(self) -> dict[str, Any]:
        """Plain dicts, for JSON."""
        return {
            "candidates": [
                dataclasses.asdict(c)
                | {"step_seconds": c.estimate.time.estimate, "needed_bytes": c.estimate.needed}
                for c in self.candidates
            ],
            "compiled": [
                {"overrides": r.candidate.overrides, "failure": r.failure}
                | {"plan": None if r.plan is None else r.plan.to_tree()}
                for r in self.results
            ],
        }


def search(
    request: PlanRequest,
    *,
    compiled: int = 4,
    workers: int = 2,
    progress: Callable[[str], None] = lambda _: None,
) -> Search:
    """Look at every mesh that the recipe's batch and model divide over, and compile the best.

    `expert` is searched where the model has experts, `context` where the recipe has it or fewer rows than
    devices. Compiling goes on until `compiled` steps fit, or twice as many were tried.

    Raises:
        InputError: nothing divides; the sentence has the reason of the last.
    """
    found = sorted(candidates(request), key=lambda candidate: candidate.estimate.time.estimate)
    fitting = [candidate for candidate in found if candidate.estimate.fits]
    progress(f"{len(found)} candidates, of which {len(fitting)} fit by the closed form")
    results: list[Result] = []
    waiting = iter(fitting[: 2 * compiled])
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        while sum(r.plan is not None and r.plan.memory.fits for r in results) < compiled:
            batch = list(itertools.islice(waiting, workers))
            if not batch:
                break
            for result in pool.map(lambda candidate: _compile(request, candidate), batch):
                results.append(result)
                progress(f"compiled {' '.join(result.candidate.overrides)}")
    return Search(candidates=tuple(found), results=tuple(sorted(results, key=_rank)))


def candidates(request: PlanRequest) -> list[Candidate]:
    """Every way to run the recipe on the devices that divides.

    Raises:
        InputError: there is none.
    """
    config, reason, found = request.load(), "", []
    for overrides in _variants(config, request):
        try:
            variant = dataclasses.replace(request, overrides=request.overrides + overrides).load()
            of_variant = estimate(variant, request)
        except InputError as error:
            reason = str(error)
            continue
        found.append(
            Candidate(
                overrides=overrides,
                mesh=variant.mesh.resolve(request.devices),
                microbatches=variant.training.microbatches,
                remat=variant.model.remat,
                estimate=of_variant,
            )
        )
    if not found:
        raise InputError(f"no mesh of {request.devices} GPUs fits the recipe: {reason}")
    return found


def _variants(config: RunConfig, request: PlanRequest) -> Iterator[Overrides]:
    experts = _experts(config)
    if not experts and config.mesh.expert == -1:
        raise InputError("mesh.expert = -1: a search keeps it as it is, so it has to be a number")
    devices = request.devices
    split = config.mesh.context != 1 or config.training.batch_size < devices
    contexts = divisors(devices) if split else [1]
    for tensor, context, expert in itertools.product(divisors(request.per_node), contexts, divisors(devices)):
        shares = tensor * context * expert
        if devices % shares or (experts % expert if experts else expert != config.mesh.expert):
            continue
        for fsdp in divisors(devices // shares):
            shards = devices // (tensor * context)
            mesh = f"mesh.data=-1 mesh.fsdp={fsdp} mesh.context={context} mesh.expert={expert}".split()
            mesh.append(f"mesh.tensor={tensor}")
            for count in divisors(max(config.training.batch_size // shards, 1)):
                for remat in ("none", "selective", "full"):
                    yield (*mesh, f"training.microbatches={count}", f"model.remat={remat}")


def _experts(config: RunConfig) -> int:
    """Over how many `expert` may be split: the least that a mixture has; 0 where there is none."""
    model = abstract_model(config.model)
    axes, shapes = flatten(logical_axes_of(model)), flatten(parameters_of(model))
    found = [shapes[path].shape[names.index("experts")] for path, names in axes.items() if "experts" in names]
    return min(found, default=0)


def _compile(request: PlanRequest, candidate: Candidate) -> Result:
    asked = dataclasses.replace(request, overrides=request.overrides + candidate.overrides)
    try:
        return Result(candidate=candidate, plan=plan(asked))
    except CompilerDiedError as error:
        return Result(candidate=candidate, plan=None, failure=str(error))


def _rank(result: Result) -> tuple[bool, float]:
    if result.plan is None:
        return True, float("inf")
    return not result.plan.memory.fits, result.plan.time.estimate
