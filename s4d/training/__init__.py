"""Training loops and the store of runs."""
from .evaluate import along_time, predict, war_uar
from .finetune import finetune
from .inputs import locate
from .jobs import run_all, train
from .parallel import leave, pick_device
from .pretrain import pretrain
from .runs import Run, RunError

__all__ = ["along_time", "finetune", "leave", "locate", "pick_device", "predict", "pretrain",
           "run_all", "train", "war_uar", "Run", "RunError"]
