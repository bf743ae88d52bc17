"""The second order of DARTS without a finite difference: differentiation through the virtual step (eq. 6)."""

from ops.kernels import differentiable_twice
from supernet.hypergradients.base import Problem, Tensors, add_reduced, at_virtual_step, grad, written
from supernet.hypergradients.joined import Joined


def unrolled(problem: Problem) -> Tensors:
    """The exact d/d alpha of `val_loss(w'(alpha), alpha)`, w'(alpha) one virtual step from w.

    By the chain rule it is the direct part plus `d_alpha <d_w L_train(w, alpha), u>` with u held fixed: one product with the mixed
    second derivative, by differentiating the gradient. Needs a network that can be differentiated twice.
    """
    joined = Joined(problem.w)
    start = joined.copied(problem.w)
    with written(problem.w, joined, start) as write:
        direct, along_w = at_virtual_step(problem, joined, start, write)
    u = joined.parts(along_w)
    with differentiable_twice():
        gradient = grad(problem.train_loss(), problem.w, create_graph=True)
    used = [(g, v) for g, v in zip(gradient, u) if g.requires_grad]  # a gradient that nothing depends on has no derivative
    along = sum((g * v).sum() for g, v in used)
    return add_reduced(problem, direct, grad(along, problem.alpha) if used else tuple(a.new_zeros(a.shape) for a in problem.alpha))
