"""What all pictures of benchmarks end with."""

import io

from matplotlib.figure import Figure


def png(figure: Figure) -> bytes:
    """The figure as a file, without a date or a version in it: equal numbers give equal bytes."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=130, metadata={"Software": None})
    return file.getvalue()
