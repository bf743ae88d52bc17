"""What a training by several processes cannot have, said before any work."""

from omegaconf import DictConfig

from supernet.errors import UsageError
from supernet.processes.group import Group


def refuse_for_many(cfg: DictConfig, group: Group) -> None:
    """Raises UsageError: an option that works in one process, of a group of several."""
    if group.size == 1:
        return
    hindrances = {"compile=graph": cfg.compile == "graph", "graph_augmentation=true": cfg.graph_augmentation,
                  "compile=inductor with synchronised_norms=true": cfg.compile == "inductor" and cfg.synchronised_norms,
                  "checkpoint_cells=true with synchronised_norms=true": cfg.checkpoint_cells and cfg.synchronised_norms,
                  # the labels' loss is a mean by weights, the teacher's one by counts
                  "task.class_weights with a teacher": cfg.get("teacher") is not None and cfg.task.get("class_weights") is not None,
                  f"backend={cfg.backend} with synchronised_norms=true": cfg.synchronised_norms and cfg.backend not in ("auto", "plain")}
    for what, hinders in hindrances.items():
        if hinders:
            raise UsageError(f"{what} works in one process, got {group.size}: start it without torchrun, or leave it out")
