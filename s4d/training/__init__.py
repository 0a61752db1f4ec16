"""Training loops and the store of runs."""
from .evaluate import along_time, predict, war_uar
from .finetune import finetune
from .jobs import locate, run_all, train
from .pretrain import pretrain
from .runs import Run, RunError

__all__ = ["along_time", "finetune", "locate", "pretrain", "predict", "run_all", "train", "war_uar", "Run", "RunError"]
