"""The hypergradient with xi = 0: the weights are taken to be optimal as they are (DARTS, Sec. 2.3)."""

from supernet.hypergradients.base import Problem, Tensors, constant, grad, static


@static
def first_order(problem: Problem) -> Tensors:
    """d val_loss(w, alpha) / d alpha at fixed w. No gradient of the weights is computed or stored for."""
    with constant(problem.w):
        return problem.reduce(grad(problem.val_loss(), problem.alpha))
