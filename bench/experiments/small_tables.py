"""The experiments with small models that are trained here."""

from bench.experiments.declaration import ACCURACY, SEMANTIC, PaperTable, Row, SmallBlock, built
from bench.experiments.notes import CAMVID_NOTES, NUCLEI_NOTES


def small_rows(dataset: str, first: int) -> tuple[Row, ...]:
    """The four mask-classification methods with small models on one data set, numbered from `first`."""
    methods = ("maskformer", "mask2former", "hcformer", "hcformer+")
    return tuple(built(number, method, "small", dataset, "small") for number, method in enumerate(methods, start=first))


def small_real() -> PaperTable:
    """Small models on small real data sets: nothing of it is printed in the paper."""
    return PaperTable(
        name="small_real",
        title="Small real data: CamVid and nuclei",
        dataset="camvid",
        columns=(),
        rows=(),
        small_blocks=(
            SmallBlock(small_rows("camvid", 1), SEMANTIC, CAMVID_NOTES),
            SmallBlock(small_rows("nuclei", 5), ACCURACY, NUCLEI_NOTES),
        ),
    )
