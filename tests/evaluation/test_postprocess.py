"""Post-processing against values worked out by hand and against a literal composition of torch functions."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from bench.evaluation import postprocess
from bench.evaluation.postprocess import (
    instance_predictions,
    panoptic_segments,
    resize_masks,
    semantic_labels,
    semantic_labels_of,
    semantic_scores,
)
from tests.evaluation.panoptic_folder import IS_THING, class_logits, mask_logits


def rows(*spans: tuple[int, int], height: int = 10, width: int = 4) -> torch.Tensor:
    """Masks [Q, height, width] of full rows from a span's start to before its end."""
    masks = torch.zeros(len(spans), height, width, dtype=torch.bool)
    for mask, (start, end) in zip(masks, spans, strict=True):
        mask[start:end] = True
    return masks


def segments_of(queries, masks, **options):
    return panoptic_segments(class_logits(queries), mask_logits(list(masks)), IS_THING, **options)


def test_resize_is_pad_size_then_crop_then_original_size():
    logits = torch.randn(3, 16, 24)
    resized = resize_masks(logits, (64, 96), (50, 90), (37, 71))
    padded = F.interpolate(logits[:, None], (64, 96), mode="bilinear", align_corners=False)
    direct = F.interpolate(padded[:, :, :50, :90], (37, 71), mode="bilinear", align_corners=False)[:, 0]
    assert resized.shape == (3, 37, 71)
    torch.testing.assert_close(resized, direct)


def test_padding_never_reaches_the_result():
    """A mask that is hot only in the padding vanishes, apart from the border that interpolation shares."""
    logits = torch.full((1, 16, 16), -9.0)
    logits[:, :, 12:] = 9.0
    resized = resize_masks(logits, (64, 64), (64, 44), (33, 21))
    assert (resized < 0).all()


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace:DeprecationWarning")
def test_resize_and_semantic_scores_run_on_meta_and_in_a_trace():
    masks, classes = torch.randn(5, 8, 8), torch.randn(5, 4)

    def pipeline(classes, masks):
        return semantic_scores(classes, resize_masks(masks, (32, 32), (30, 25), (45, 37)))

    assert pipeline(classes.to("meta"), masks.to("meta")).shape == (3, 45, 37)
    traced = torch.jit.trace(pipeline, (classes, masks))
    torch.testing.assert_close(traced(classes, masks), pipeline(classes, masks))


def test_semantic_scores_by_hand():
    classes = class_logits([(0, 0.75), (1, 0.5)], num_classes=2)
    masks = torch.tensor([[[0.0, 100.0]], [[100.0, -100.0]]])  # probabilities 1/2, 1 and 1, 0
    expected = torch.tensor([[[0.375, 0.75]], [[0.5, 0.0]]])
    torch.testing.assert_close(semantic_scores(classes, masks), expected)
    assert semantic_labels(classes, masks).tolist() == [[1, 0]]


def test_models_for_semantic_segmentation_alone_resize_scores():
    """Class 0: logits -9 and 9 side by side; class 1: -0.4 everywhere, so 0.4013 as a probability.

    Sixteen times as wide, pixel i (from 0) lies at share (i + 0.5) / 16 - 0.5 of the way. Resized scores of class 0 go
    linearly from 0 to 1 and pass 0.4013 at pixel 14.4; resized masks pass logit -0.4 at 0.478, so at pixel 15.1.
    """
    classes = class_logits([(0, 1.0), (1, 1.0)], num_classes=2)
    masks = torch.tensor([[[-9.0, 9.0]], [[-0.4, -0.4]]])
    sizes = (1, 2), (1, 2), (1, 32)
    scores_resized = semantic_labels_of(classes, masks, *sizes)
    masks_resized = semantic_labels(classes, resize_masks(masks, *sizes))
    assert scores_resized[0].tolist() == [1] * 14 + [0] * 18
    assert masks_resized[0].tolist() == [1] * 16 + [0] * 16


def test_scores_of_the_padding_are_cut_off():
    """Class 1 only in the padding, right of a 50 x 45 image in a 64 x 64 input."""
    classes = class_logits([(0, 1.0), (1, 1.0)], num_classes=2)
    masks = torch.full((2, 64, 64), 5.0)
    masks[1], masks[1, :, 46:], masks[1, 51:] = -5.0, 9.0, 9.0
    labels = semantic_labels_of(classes, masks, (64, 64), (50, 45), (37, 41))
    assert labels.shape == (37, 41) and not labels.any()


def test_overlapping_masks_go_to_the_more_certain_query():
    # Rows 9 and 10 of 10 are disputed: query 1 wins them; query 0 keeps 8 of 10 rows, exactly the threshold.
    result = segments_of([(0, 0.85), (1, 0.95)], rows((0, 10), (8, 18), height=20))
    assert result.segments == [
        {"id": 1, "category": 0, "is_thing": True},
        {"id": 2, "category": 1, "is_thing": True},
    ]
    assert result.segmentation.dtype == torch.int32
    assert result.segmentation[:, 0].tolist() == [1] * 8 + [2] * 10 + [0] * 2


def test_query_with_too_little_left_is_dropped_and_leaves_void():
    # Query 0 keeps 7 of 10 rows, under 0.8: its rows become void, the winner's stay.
    result = segments_of([(0, 0.85), (1, 0.95)], rows((0, 10), (7, 17), height=20))
    assert [segment["category"] for segment in result.segments] == [1]
    assert result.segmentation[:, 0].tolist() == [0] * 7 + [1] * 10 + [0] * 3


def test_area_that_is_won_counts_pixels_outside_the_mask_too():
    """The visible fraction is (pixels won) / (own mask), as in the reference: won pixels need not be in the mask.

    Query 0 loses 4 of its 10 rows to query 1, but wins the 4 rows that no mask covers, as its probability is larger
    there: (6 + 4) / 10 >= 0.8, so it stays, with its 6 visible rows.
    """
    logits = mask_logits(list(rows((0, 10), (6, 16), height=20)))
    logits[0, 16:] = -1.0
    result = panoptic_segments(class_logits([(0, 0.85), (1, 0.95)]), logits, IS_THING)
    assert result.segmentation[:, 0].tolist() == [1] * 6 + [2] * 10 + [0] * 4


def test_maskformer_s_segments_are_all_that_their_queries_win():
    """As above, but the 4 rows that no mask covers are of query 0, which wins them. Of a mask that covers nothing
    (probability below 0.5 everywhere) no segment comes, though it wins pixels."""
    logits = mask_logits(list(rows((0, 10), (6, 16), height=20)))
    logits[0, 16:] = -1.0
    classes = class_logits([(0, 0.85), (1, 0.95)])
    result = panoptic_segments(classes, logits, IS_THING, cut_to_mask=False)
    assert result.segmentation[:, 0].tolist() == [1] * 6 + [2] * 10 + [1] * 4
    empty = torch.full_like(logits[:1], -0.1)
    for cut in (True, False):
        nothing = panoptic_segments(classes[:1], empty, IS_THING, cut_to_mask=cut)
        assert not nothing.segments and not nothing.segmentation.any()


def test_stuff_of_two_queries_merges_and_things_do_not():
    queries = [(3, 0.9), (0, 0.9), (3, 0.9), (0, 0.9)]
    result = segments_of(queries, rows((0, 2), (2, 4), (4, 7), (7, 10)))
    assert result.segmentation[:, 0].tolist() == [1, 1, 2, 2, 1, 1, 1, 3, 3, 3]
    assert [(s["id"], s["category"]) for s in result.segments] == [(1, 3), (2, 0), (3, 0)]


def test_query_at_or_below_the_threshold_takes_no_part():
    # Were the weak query in, it would win row 2 (0.79 against 0 of the other) and be a segment.
    result = segments_of([(0, 0.9), (1, 0.79)], rows((0, 2), (2, 4)))
    assert [segment["category"] for segment in result.segments] == [0]
    assert result.segmentation.sum() == 2 * 4
    assert len(segments_of([(0, 0.9), (1, 0.79)], rows((0, 2), (2, 4)), object_threshold=0.5).segments) == 2


@pytest.mark.parametrize(
    "queries, masks",
    [
        ([(0, 0.1), (3, 0.2)], rows((0, 5), (5, 10))),  # all "no object"
        ([(0, 0.99), (3, 0.99)], rows((0, 0), (0, 0))),  # certain classes, empty masks
    ],
)
def test_image_without_segments_is_all_void(queries, masks):
    result = segments_of(queries, masks)
    assert result.segments == []
    assert result.segmentation.shape == (10, 4) and not result.segmentation.any()


def test_instance_scores_by_hand():
    classes = class_logits([(0, 0.6), (3, 0.9), (2, 0.5)])
    half, most = 0.0, torch.logit(torch.tensor(0.75)).item()
    masks = torch.tensor(
        [
            [[100.0, most, half, -5.0]],  # inside: probabilities 1 and 3/4 (0.5 is outside: logit > 0)
            [[100.0, 100.0, 100.0, 100.0]],  # stuff
            [[-1.0, -1.0, -1.0, -1.0]],  # empty
        ]
    )
    result = instance_predictions(classes, masks, IS_THING, top_k=3)
    assert result.labels.tolist() == [0, 2]
    torch.testing.assert_close(result.scores, torch.tensor([0.6 * 0.875, 0.0]), atol=1e-6, rtol=0)
    assert result.masks.tolist() == [[[True, True, False, False]], [[False] * 4]]


def test_instances_are_the_best_pairs_and_a_query_may_have_two_classes():
    probabilities = torch.tensor([[0.5, 0.4, 0.0, 0.1], [0.1, 0.2, 0.6, 0.1]])
    masks = torch.full((2, 1, 1), 100.0)
    result = instance_predictions(probabilities.log(), masks, [True, True, False], top_k=3)
    # The three best are (1, stuff) 0.6, (0, 0) 0.5, (0, 1) 0.4; stuff takes its place and is then left out.
    assert result.labels.tolist() == [0, 1]
    torch.testing.assert_close(result.scores, torch.tensor([0.5, 0.4]))


def test_more_pairs_asked_than_there_are():
    result = instance_predictions(torch.randn(2, 4), torch.randn(2, 3, 5), [True, False, True], top_k=100)
    assert result.masks.shape == (4, 3, 5)


def test_wrong_number_of_classes_is_refused():
    with pytest.raises(ValueError, match="7 class logits for 5 classes"):
        panoptic_segments(torch.zeros(2, 7), torch.zeros(2, 4, 4), IS_THING)


def literal_panoptic(classes, masks, is_thing, object_threshold=0.8, overlap_threshold=0.8, cut_to_mask=True):
    """The rule as the papers tell it, query by query on whole images: Mask2Former's, or, without cut, MaskFormer's."""
    scores, labels = classes.softmax(-1).max(-1)
    keep = labels.ne(len(is_thing)) & (scores > object_threshold)
    segmentation, kinds, stuff = torch.zeros(masks.shape[1:], dtype=torch.int32), [], {}
    if not keep.any():
        return segmentation, kinds
    # One by one: the sigmoid of a tensor's last elements is rounded differently, and equal masks would not be equal.
    masks = torch.stack([mask.sigmoid() for mask in masks[keep]])
    owner = (scores[keep].view(-1, 1, 1) * masks).argmax(0)
    for query, label in enumerate(labels[keep].tolist()):
        mine, own = owner == query, masks[query] >= 0.5
        shown = mine & own if cut_to_mask else mine
        if mine.sum() == 0 or own.sum() == 0 or shown.sum() == 0 or mine.sum() / own.sum() < overlap_threshold:
            continue
        if is_thing[label] or label not in stuff:
            kinds.append(label)
            stuff[label] = len(kinds)
            segmentation[shown] = len(kinds)
        else:
            segmentation[shown] = stuff[label]
    return segmentation, kinds


@given(
    seed=st.integers(0, 10**6), queries=st.integers(1, 12), height=st.integers(1, 33), width=st.integers(1, 41),
    cut=st.booleans(),
)  # fmt: skip
def test_panoptic_equals_the_literal_rule(seed, queries, height, width, cut):
    generator = torch.Generator().manual_seed(seed)
    classes = 6 * torch.randn(queries, 6, generator=generator)
    masks = F.interpolate(6 * torch.randn(1, queries, 4, 4, generator=generator), (height, width), mode="bicubic")[0]
    result = panoptic_segments(classes, masks, IS_THING, cut_to_mask=cut)
    segmentation, kinds = literal_panoptic(classes, masks, IS_THING, cut_to_mask=cut)
    assert torch.equal(result.segmentation, segmentation)
    assert [segment["category"] for segment in result.segments] == kinds


def literal_instances(classes, masks, is_thing, top_k):
    """Scores, labels and masks of one pair of query and class after the other, from masks at full size."""
    probabilities = classes.softmax(-1)[:, :-1]
    values, pairs = probabilities.flatten().topk(min(top_k, probabilities.numel()))
    found = []
    for value, pair in zip(values, pairs.tolist(), strict=True):
        query, label = divmod(pair, len(is_thing))
        if is_thing[label]:
            inside = masks[query] > 0
            quality = (masks[query].sigmoid() * inside).sum() / (inside.sum() + 1e-6)
            found.append((value * quality, label, inside))
    return found


def resize_all(masks, padded_size, image_size, original_size):
    """`resize_masks` as it is told: all masks at the padded size, cut, then all at the original size."""
    masks = F.interpolate(masks[:, None], padded_size, mode="bilinear", align_corners=False)
    masks = masks[:, :, : image_size[0], : image_size[1]]
    return F.interpolate(masks, original_size, mode="bilinear", align_corners=False)[:, 0]


@st.composite
def predictions(draw):
    """Class logits [Q, 6], mask logits [Q, h, w] in either layout, three sizes: with doubt, certainty and ties."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    queries, height, width = draw(st.integers(1, 14)), draw(st.integers(1, 24)), draw(st.integers(1, 24))
    classes = 6 * torch.randn(queries, 6, generator=generator)
    masks = 6 * torch.randn(queries, height, width, generator=generator)
    classes[:, -1] += draw(st.sampled_from([0, 0, 60, -60]))  # no query is kept, or none is "no object"
    kind = draw(st.sampled_from(["all differ", "equal queries", "saturated"]))
    if kind == "equal queries":
        same = torch.randint(0, (queries + 1) // 2, (queries,), generator=generator)
        classes, masks = classes[same], masks[same]
    elif kind == "saturated":  # equal scores too: whole regions are tied
        classes, masks = 100 * (classes == classes.max(-1, keepdim=True).values), 100 * masks.sign()
    if draw(st.booleans()):
        masks = masks.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    padded = 4 * height, 4 * width
    image = draw(st.integers(1, padded[0])), draw(st.integers(1, padded[1]))
    return classes.float(), masks, (padded, image, (draw(st.integers(1, 110)), draw(st.integers(1, 110))))


@given(
    prediction=predictions(), objects=st.sampled_from([0.8, 0.3, 0.0]), overlap=st.sampled_from([0.8, 0.3]),
    cut=st.booleans(),
)  # fmt: skip
def test_panoptic_of_few_resized_masks_equals_that_of_all(prediction, objects, overlap, cut):
    classes, masks, sizes = prediction
    result = panoptic_segments(classes, masks, IS_THING, objects, overlap, sizes, cut)
    segmentation, kinds = literal_panoptic(classes, resize_all(masks, *sizes), IS_THING, objects, overlap, cut)
    assert torch.equal(result.segmentation, segmentation)
    assert [segment["category"] for segment in result.segments] == kinds


@given(prediction=predictions(), top_k=st.sampled_from([1, 4, 100]))
def test_instances_of_few_resized_masks_equal_those_of_all(prediction, top_k):
    classes, masks, sizes = prediction
    result = instance_predictions(classes, masks, IS_THING, top_k, sizes)
    expected = literal_instances(classes, resize_all(masks, *sizes), IS_THING, top_k)
    assert result.masks.dtype == torch.bool and result.masks.shape == (len(expected), *sizes[2])
    assert result.labels.tolist() == [label for _, label, _ in expected]
    assert result.scores.tolist() == [float(score) for score, _, _ in expected]
    assert all(torch.equal(mask, inside) for mask, (_, _, inside) in zip(result.masks, expected, strict=True))


@given(prediction=predictions(), budget=st.sampled_from([1, 20_000, 2**19]))
def test_masks_come_out_the_same_however_few_are_resized_at_once(prediction, budget):
    _, masks, sizes = prediction
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(postprocess, "_CPU_CHUNK", budget)
        assert torch.equal(resize_masks(masks, *sizes), resize_all(masks, *sizes))


def test_the_first_of_equal_queries_wins():
    classes, masks = class_logits([(0, 0.9), (1, 0.9), (2, 0.9)]), torch.full((3, 3, 5), 2.0)
    result = panoptic_segments(classes, masks, IS_THING, sizes=((12, 20), (11, 17), (7, 9)))
    assert [segment["category"] for segment in result.segments] == [0] and (result.segmentation == 1).all()


class LargestTensor(TorchDispatchMode):
    """The most elements of a floating-point tensor that an operator gave."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        if isinstance(output, torch.Tensor) and output.is_floating_point():
            self.elements = max(self.elements, output.numel())
        return output


def test_masks_of_all_queries_are_never_held_at_full_size():
    padded, image, original = sizes = (256, 352), (240, 350), (200, 300)
    classes = class_logits([(0, 0.9), (1, 0.85), (3, 0.95)] + [(0, 0.01)] * 57)
    masks = F.interpolate(6 * torch.randn(1, 60, 4, 4), (64, 88), mode="bicubic")[0]
    with LargestTensor() as largest:
        panoptic_segments(classes, masks, IS_THING, sizes=sizes)
        instance_predictions(classes, masks, IS_THING, top_k=20, sizes=sizes)
    assert largest.elements <= max(masks.numel(), 4 * padded[0] * padded[1])
    with LargestTensor() as largest:
        resized = resize_masks(masks, *sizes)
    assert largest.elements == resized.numel() == 60 * original[0] * original[1], "never all at the padded size"


def test_strips_do_not_change_the_result(monkeypatch):
    torch.manual_seed(0)
    classes, masks = 6 * torch.randn(9, 6), 6 * torch.randn(9, 23, 31)
    whole = panoptic_segments(classes, masks, IS_THING), semantic_labels(classes, masks)
    monkeypatch.setattr(postprocess, "_CPU_CHUNK", 1)
    strips = panoptic_segments(classes, masks, IS_THING), semantic_labels(classes, masks)
    assert torch.equal(whole[0].segmentation, strips[0].segmentation) and torch.equal(whole[1], strips[1])
    assert torch.equal(whole[1], semantic_scores(classes, masks).argmax(0))
