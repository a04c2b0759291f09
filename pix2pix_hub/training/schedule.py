"""The learning rate over a run: constant, then linear to zero, counted in optimizer steps.

pix2pix (Isola et al. 2017, section 3.3 and appendix 6.2) trains with Adam at 2e-4, for 200 epochs on the small sets.
The split into 100 epochs at that rate and 100 epochs linearly to zero is the authors' own: their PyTorch code's
default (`n_epochs` + `n_epochs_decay`) and CycleGAN's section 7.1 (Zhu et al. 2017).
"""

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def linear_decay_factor(step: int, total_steps: int, decay_steps: int) -> float:
    """Return what to multiply the base learning rate with at ``step``, in [0, 1].

    ``min(1, (total_steps - step) / decay_steps)``, never below 0: step ``total_steps - decay_steps`` still has 1, the
    last step, ``total_steps - 1``, has ``1 / decay_steps``, and 0 holds from ``total_steps`` on. With ``decay_steps``
    0 the factor is 1 until then.

    Args:
        step: optimizer steps already taken, from 0.
        total_steps: optimizer steps of the whole run, constant and decaying together.
        decay_steps: how many of them, at the end, decay.
    """
    remaining = max(0, total_steps - step)
    return min(1.0, remaining / max(1, decay_steps))


def build_schedule(optimizer: Optimizer, total_steps: int, decay_steps: int) -> LambdaLR:
    """Return a schedule to ``.step()`` once after each optimizer step; it multiplies every group's learning rate.

    Its ``state_dict`` holds the position but neither number of steps: a resumed run must pass the same two.
    Accelerate's ``prepare`` would step it once per process, so leave it unprepared or prepare it under
    ``Accelerator(step_scheduler_with_optimizer=False)``.

    Raises:
        ValueError: a number of steps is negative, or ``decay_steps`` is above ``total_steps``.
    """
    if total_steps < 0 or decay_steps < 0:
        raise ValueError(f"total_steps is {total_steps} and decay_steps {decay_steps}; expected neither below 0")
    if decay_steps > total_steps:
        raise ValueError(f"decay_steps is {decay_steps}; expected at most total_steps, which is {total_steps}")
    return LambdaLR(optimizer, lambda step: linear_decay_factor(step, total_steps, decay_steps))
