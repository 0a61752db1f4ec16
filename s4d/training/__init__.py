"""Training loops and the store of runs."""
from .evaluate import along_time, predict, war_uar
from .finetune import finetune
from .jobs import run_all, train
from .pretrain import pretrain
from .runs import Run, RunError, build, locate, plan_batches, samples_of, sources, tables
from .setup import pick_device

__all__ = ["Run", "RunError", "along_time", "build", "finetune", "locate", "pick_device",
           "plan_batches", "predict", "pretrain", "run_all", "samples_of", "sources", "tables",
           "train", "war_uar"]
