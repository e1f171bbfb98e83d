"""mIoU and pixel accuracy of semantic segmentation, as in table 3 of the paper."""

from torch import Tensor

from bench.errors import BenchError
from bench.evaluation.base import Evaluator, Prediction, check_size, output_size
from bench.evaluation.confusion import Confusion
from bench.evaluation.postprocess import Sizes, semantic_labels, semantic_labels_of


class SemanticEvaluator(Evaluator):
    """mIoU over the classes of the ground truth, and the share of right pixels; ignored pixels (255) do not count.

    On Cityscapes a class that is predicted but nowhere true counts as 0, as in its official evaluation. With `sizes`,
    class scores and not masks are brought to the image's original size (`semantic_labels_of`).
    """

    def __init__(self, dataset, missing_counts: bool = False):
        super().__init__(dataset)
        self._dataset = dataset
        self._positions = {image["id"]: index for index, image in enumerate(dataset.images)}
        self._confusion = Confusion(len(dataset.categories), missing_counts)

    def predict(
        self, image_id: int, class_logits: Tensor, mask_logits: Tensor, sizes: Sizes | None = None
    ) -> Prediction:
        if sizes is None:
            labels = semantic_labels(class_logits, mask_logits)
        else:
            labels = semantic_labels_of(class_logits, mask_logits, *sizes)
        return Prediction(image_id, output_size(mask_logits, sizes), labels=labels.cpu().numpy())

    def measure_prediction(self, prediction: Prediction) -> dict:
        image = self._image(prediction)
        truth = self._dataset.label_map(self._positions[prediction.image_id])
        check_size(prediction, truth.shape, "its annotation")
        classes = len(self._dataset.categories)
        if prediction.labels.size and not 0 <= prediction.labels.min() <= prediction.labels.max() < classes:
            raise BenchError(
                f"a label of image {prediction.image_id} is no class: give indices from 0 to {classes - 1}"
            )
        return {"image": image, "confusion": self._confusion.measure(truth, prediction.labels)}

    def _counters(self) -> dict:
        return {"confusion": self._confusion}

    def _compute(self) -> dict[str, float]:
        return {"mIoU": self._confusion.mean_iou(), "pixel_accuracy": self._confusion.pixel_accuracy()}
