"""`python -m cluster translate`: a folder of any size, by all machines of a cluster."""

from collections.abc import Sequence

from cluster.jobs.final_errors import final_errors_stop_the_job
from cluster.translation.options import parse
from nla_cyclegan.weights.references import check_there


@final_errors_stop_the_job()
def main(arguments: Sequence[str]) -> int:
    """The exit status: 1 if no image came through, or, with --strict, not all. Raises: UserError."""
    options = parse(arguments)
    check_there(options.weights)
    # Not before: torch takes seconds, and --help should not.
    from cluster.translation.run import translate

    return translate(options)
