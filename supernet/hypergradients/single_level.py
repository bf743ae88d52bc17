"""One level: alpha descends on the training loss, like the weights (SNAS, Xie et al. 2019, Sec. 2.2; ASAP; single-level GAEA)."""

from supernet.hypergradients.base import Problem, Tensors, constant, grad, static


@static
def single_level(problem: Problem) -> Tensors:
    """d train_loss(w, alpha) / d alpha at fixed w, penalties included. The validation batch is not used.

    The official codes take one backward pass for w and alpha together; here the w step follows with a draw of its own.
    """
    with constant(problem.w):
        return problem.reduce(grad(problem.joint_loss(), problem.alpha))
