"""What a recipe says about the training run itself."""

import dataclasses

from mjx.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How long, how much at a time, and how often to look."""

    steps: int
    """Optimizer updates."""
    batch_size: int
    """Rows of one update, over the whole mesh."""
    stop_at: int | None = None
    """End this start of the run after this step, as a signal would; the schedule and the order of the data
    are still those of all `steps`."""
    microbatches: int = 1
    """Parts that the batch is cut into, one after the other, to save memory."""
    seed: int = 0
    """Of the initial parameters and of dropout. The order of the data has its own, data.seed."""
    evaluation_interval: int | None = None
    """Steps between validation losses; null: only at the end."""
    evaluation_rows: int = 256
    """Rows of the validation split that each validation loss is taken over (all, if there are fewer);
    0: no validation."""
    zero1: bool = False
    """Split the optimizer's moments over `data` as well (ZeRO-1)."""
    prompts: tuple[str, ...] = ()
    """Continued by the trained model at the end of the run."""

    def __post_init__(self):
        for name in ("steps", "batch_size", "microbatches"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} = {getattr(self, name)} must be positive")
        if self.batch_size % self.microbatches:
            raise InputError(
                f"microbatches = {self.microbatches} does not divide batch_size = {self.batch_size}"
            )
        if self.evaluation_interval is not None and self.evaluation_interval < 1:
            raise InputError(f"evaluation_interval = {self.evaluation_interval} must be positive, or null")
        if self.stop_at is not None and self.stop_at < 1:
            raise InputError(f"stop_at = {self.stop_at} must be positive, or null for the end")
        if self.evaluation_rows < 0:
            raise InputError(f"evaluation_rows = {self.evaluation_rows} must be positive, or 0 for none")
        if not 0 <= self.seed < 2**32:
            raise InputError(f"seed = {self.seed} must be from 0 to {2**32 - 1}")
