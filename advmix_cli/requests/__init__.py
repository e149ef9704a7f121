"""What each command was asked, and what that comes to: the same for the command line, a file, or Python.

A request holds what was said, None for what was not. `resolve(session)` looks up references, presets and defaults, and
gives what the workflow takes; nothing is computed, and what does not fit together is said here, before any work.
"""

from advmix_cli.requests.attacking import Attack, Attacking, Evaluate, EvaluateEach, Evaluating
from advmix_cli.requests.training import AdvTrain, Train, Training

__all__ = ["AdvTrain", "Attack", "Attacking", "Evaluate", "EvaluateEach", "Evaluating", "Train", "Training"]
