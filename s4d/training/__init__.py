"""Training loops and the store of runs."""
from .evaluate import along_time, predict, war_uar
from .finetune import finetune
from .jobs import locate, run_all, train
from .memory import describe, dry_run
from .pretrain import pretrain
from .ranks import leave
from .runs import Run, RunError

__all__ = ["along_time", "describe", "dry_run", "finetune", "leave", "locate", "pretrain", "predict", "run_all", "train", "war_uar", "Run",
           "RunError"]
