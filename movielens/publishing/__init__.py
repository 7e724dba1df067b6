"""Publishing: how a result takes the place of the earlier one, so that a reader finds a whole result at every moment.

`publication` is the way of one run from top to bottom. docs/guarantees.md states the invariants and the steps.
May be imported by `run`, by `earlier` and by the page.
"""
