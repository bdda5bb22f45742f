"""Training: `fit`, its loop, optimizers, losses, schedules, callbacks, checkpoints."""
