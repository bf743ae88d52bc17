"""What finds the genotype at the end of a search."""

from supernet.genotype import Genotype
from supernet.training.search import SearchLoop


class FinalSelection:
    """An interface. The call may use and change all that the loop holds: nothing is saved after it."""

    def check(self, loop: SearchLoop) -> None:
        """Before any work: raises ValueError where it could not work at the end."""

    def __call__(self, loop: SearchLoop) -> Genotype:
        raise NotImplementedError
