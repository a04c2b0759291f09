"""What is asked of the pairs: the options that concern data, checked at the border."""

from __future__ import annotations

from dataclasses import dataclass

from pix2pix_hub.util import UserError

MODES = ("auto", "gray", "rgb", "rgba", "labels")


@dataclass(frozen=True)
class PairRequest:
    """The arguments of `pix2pix_hub.data.pairs.load_pairs`, which documents them."""

    dataset: str
    direction: str = "AtoB"
    image_size: tuple[int, int] = (256, 256)
    source_column: str | None = None
    target_column: str | None = None
    source_mode: str = "auto"
    target_mode: str = "auto"
    revision: str | None = None
    train_split: str = "train"
    validation_split: str | None = None
    validation_fraction: float = 0.1
    max_train_pairs: int | None = None
    max_validation_pairs: int | None = None

    def __post_init__(self) -> None:
        if self.direction not in ("AtoB", "BtoA"):
            raise UserError(f"--direction is {self.direction!r}; expected AtoB or BtoA.")
        if (self.source_column is None) != (self.target_column is None):
            raise UserError("Only one of --source-column and --target-column came; give both or neither.")
        if not 0.0 < self.validation_fraction < 1.0:
            raise UserError(f"--validation-fraction is {self.validation_fraction}; expected between 0 and 1.")
        for flag, count in (("train", self.max_train_pairs), ("validation", self.max_validation_pairs)):
            if count is not None and count < 1:
                raise UserError(f"--max-{flag}-pairs is {count}; expected 1 or more.")
        for flag, mode in (("source", self.source_mode), ("target", self.target_mode)):
            if mode not in MODES:
                raise UserError(f"--{flag}-mode is {mode!r}; expected one of {', '.join(MODES)}.")

    @property
    def swap(self) -> bool:
        """Whether B is the source."""
        return self.direction == "BtoA"

    @property
    def named_columns(self) -> tuple[str, str] | None:
        """Columns (or folders) A and B, where both were named."""
        if self.source_column is None or self.target_column is None:
            return None
        return self.source_column, self.target_column
