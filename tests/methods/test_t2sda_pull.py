"""L_pull against a slow literal reading in float64, and each of its parts against values worked out by hand."""

from math import ceil, log

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.nn import functional as F
from udabench_t2sda import pull as P

C, N, M, TAU, BETA, ALPHA = 5, 12, 16, 0.2, 0.5, 0.5
UNKNOWN = 255


def _rng(seed=0):
    return torch.Generator().manual_seed(seed)


# --- the whole loss against the literal reading ---------------------------------------------------------------------


class Case:
    """Features and labels of one batch; the labels' classes are drawn from those that are given."""

    def __init__(self, source=range(C), target=range(C), positions=200, confidence=None, unknown=0.1, seed=0):
        rng = _rng(seed)
        choose = lambda among: torch.tensor(list(among))[torch.randint(len(list(among)), (positions,), generator=rng)]  # noqa: E731
        self.label, self.target_label = choose(source), choose(target)
        self.label[torch.rand(positions, generator=rng) < unknown] = UNKNOWN
        self.confidence = torch.rand(positions, generator=rng) if confidence is None else confidence
        # Pseudo-labels and confidences of a larger picture, for the class weights.
        self.full_label = self.target_label.repeat(9)
        self.full_confidence = self.confidence.repeat(9) ** 0.3
        self.query, self.source, self.target = (torch.rand(positions, 8, generator=rng) for _ in range(3))


CASES = {
    "plain": Case(),
    "absent in source": Case(source=(0, 2, 4)),
    "absent in target": Case(target=(1, 2)),
    "absent in both": Case(source=(0, 1), target=(2, 3)),
    "half unknown": Case(unknown=0.5),
    "all unknown": Case(unknown=1.1),
    "sure everywhere": Case(confidence=torch.ones(200)),
    "sure in part": Case(confidence=torch.cat([torch.ones(150), torch.full((50,), 0.3)])),
    "one class": Case(source=(3,), target=(3,)),
    "fewer positions than queries": Case(positions=16),
    "16 x 16": Case(positions=256, seed=5),
}


def _draws(seed=1):
    rng = _rng(seed)
    return torch.rand(P.query_slots(C, N), generator=rng), torch.rand(C, M, generator=rng)


def _vectorised(case, sampling="cbqs", domains="denps", alignment="infonce", reduction="mean"):
    features = case.query.clone().requires_grad_()
    slots, uniform = _draws()
    counts = P.query_counts(case.label, C, N, sampling)
    queries = P.place_queries(case.label, counts, slots)
    unreliable = case.confidence < P.confidence_threshold(case.confidence, ALPHA)
    masks = P.negative_candidates(case.label, case.target_label, unreliable, C)
    index, has = P.place_negatives(*masks, domains, uniform)
    negative = F.normalize(torch.cat([case.source, case.target])[index], dim=-1)
    keys = P.prototypes(case.source, case.label, C)
    mean, present = P.mean_confidence(case.full_confidence, case.full_label, C)
    weights = P.class_weights(mean, present, counts > 0, BETA)
    nce = alignment == "infonce"
    loss = P.pull_loss(
        features, queries, keys, negative if nce else None, has if nce else None, weights, TAU, reduction
    )
    loss.backward()
    return loss.item(), features.grad, (queries, index)


def _unit(x):
    return x / x.norm().clamp(min=1e-12)


def _literal(case, sampling, domains, alignment, reduction, drawn):
    """Loops over classes and pixels, float64, as the paper says it; it is only told which positions were drawn."""
    queries, index = drawn
    query = case.query.double().clone().requires_grad_()
    source, keys = case.source.double(), torch.cat([case.source, case.target]).double()
    label, gamma = case.label.tolist(), torch.quantile(case.confidence.double(), ALPHA).item()
    labelled = sum(y < C for y in label)
    total, losses, doubts = 0.0, {}, {}
    for c in range(C):
        of_class = [j for j, y in enumerate(label) if y == c]
        if not of_class:
            continue
        wanted = {"cbqs": ceil(round(C * len(of_class) / labelled * N, 6)), "ceqs": N}[sampling]
        positions = queries.position[queries.row == c][queries.valid[queries.row == c]].tolist()
        assert len(positions) == wanted
        assert set(positions) <= set(of_class)
        prototype = _unit(sum(source[j] for j in of_class) / len(of_class))
        from_source = [j for j, y in enumerate(label) if y < C and y != c]
        from_target = [
            len(label) + j
            for j, y in enumerate(case.target_label.tolist())
            if y != c and case.confidence[j].item() < gamma
        ]
        negatives = index[c].tolist() if from_source or from_target else []
        _check_domains(negatives, from_source, from_target, domains)
        losses[c] = [
            _pair(_unit(query[j]), prototype, [_unit(keys[k]) for k in negatives], alignment) for j in positions
        ]
    for c in losses:
        chosen = case.full_confidence[case.full_label == c].double()
        doubts[c] = 1 - chosen.mean().item() if len(chosen) else 0.0
    largest = max(doubts.values(), default=0.0)
    raw = {c: (d / largest) ** BETA if largest > 0 else 1.0 for c, d in doubts.items()}
    for c, pairs in losses.items():
        weight = raw[c] / sum(raw.values())
        total = total + weight * (sum(pairs) / len(pairs) if reduction == "mean" else sum(pairs) / C)
    if not losses:
        return 0.0, torch.zeros_like(case.query)
    total.backward()
    return total.item(), query.grad


def _check_domains(negatives, from_source, from_target, domains):
    if domains == "source":
        assert set(negatives) <= set(from_source)
    elif domains == "pooled":
        assert set(negatives) <= set(from_source) | set(from_target)
    else:
        assert set(negatives[: M // 2]) <= set(from_source or from_target)
        assert set(negatives[M // 2 :]) <= set(from_target or from_source)


def _pair(query, positive, negatives, alignment):
    if alignment == "mse":
        return ((query - positive) ** 2).sum()
    near = torch.exp(query @ positive / TAU)
    return -torch.log(near / (near + sum(torch.exp(query @ k / TAU) for k in negatives)))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(
    ("sampling", "domains", "alignment", "reduction"),
    [
        ("cbqs", "denps", "infonce", "mean"),
        ("cbqs", "denps", "infonce", "literal"),
        ("ceqs", "pooled", "infonce", "mean"),
        ("cbqs", "source", "infonce", "mean"),
        ("cbqs", "denps", "mse", "mean"),
    ],
)
def test_equal_to_the_literal_reading(name, sampling, domains, alignment, reduction):
    options = (sampling, domains, alignment, reduction)
    value, gradient, drawn = _vectorised(CASES[name], *options)
    expected, expected_gradient = _literal(CASES[name], *options, drawn)
    assert value == pytest.approx(expected, rel=1e-5, abs=1e-7)
    torch.testing.assert_close(gradient.double(), expected_gradient.double(), rtol=1e-4, atol=1e-6)


def test_mean_and_sum_differ_by_the_number_of_queries():
    """Eq 3's sum is n sum_c w_c p_c times the means, so about n / C = 128 / 19 times the mean form at equal weights."""
    mean = _vectorised(CASES["plain"])[0]
    literal = _vectorised(CASES["plain"], reduction="literal")[0]
    assert literal / mean == pytest.approx(N / C, rel=0.25)


# --- prototypes -----------------------------------------------------------------------------------------------------


def test_prototype_is_the_normalised_mean_not_the_mean_of_normalised():
    features = torch.tensor([[3.0, 0.0], [0.0, 1.0], [5.0, 5.0]])
    keys = P.prototypes(features, torch.tensor([0, 0, UNKNOWN]), 2)
    assert keys[0].tolist() == pytest.approx([3 / 10**0.5, 1 / 10**0.5])
    wrong = F.normalize(features[:2], dim=1).mean(0)
    assert not torch.allclose(keys[0], F.normalize(wrong, dim=0), atol=0.1)
    assert keys[1].tolist() == [0, 0]


# --- query counts and places ----------------------------------------------------------------------------------------


def test_counts_by_hand():
    label = torch.tensor([0] * 6 + [1] * 3 + [2] * 1 + [UNKNOWN] * 10)
    # C p n = 4 x (0.6, 0.3, 0.1) x 5 = 12, 6, 2.
    assert P.query_counts(label, 4, 5).tolist() == [12, 6, 2, 0]
    assert P.query_counts(label, 4, 3).tolist() == [8, 4, 2, 0]  # 7.2, 3.6, 1.2
    assert P.query_counts(label, 4, 5, "ceqs").tolist() == [5, 5, 5, 0]


def test_products_that_are_whole_add_no_query():
    for pixels in (3, 7, 49, 90):
        label = torch.tensor([0] * pixels + [1] * (100 - pixels))
        counts = P.query_counts(label, 2, 50)
        assert counts.tolist() == [pixels, 100 - pixels]


@pytest.mark.parametrize("positions", [16 * 16 * 2, 8192])
@pytest.mark.parametrize("sampling", ["cbqs", "uniform"])
def test_sum_of_counts_stays_in_the_budget(positions, sampling):
    share = torch.rand(19, generator=_rng(2)) ** 4
    label = torch.multinomial(share, positions, replacement=True, generator=_rng(3))
    uniform = torch.rand(19 * 128, generator=_rng(4))
    counts = P.query_counts(label, 19, 128, sampling, uniform)
    assert 19 * 128 <= counts.sum() <= 19 * 128 + 19
    slots = torch.rand(P.query_slots(19, 128), generator=_rng(5))
    queries = P.place_queries(label, counts, slots)
    assert queries.valid.sum() == counts.sum()
    assert torch.equal(label[queries.position][queries.valid], queries.row.unsqueeze(1).expand_as(slots)[queries.valid])


def test_slots_hold_the_worst_division():
    """All classes a little over a full block, and one class alone."""
    for counts in ([P.BLOCK + 1] * 4, [4 * 200 + 4, 0, 0, 0], [1, 1, 1, 4 * 200 + 1]):
        counts = torch.tensor(counts)
        label = torch.arange(4).repeat(10)
        queries = P.place_queries(label, counts, torch.rand(P.query_slots(4, 200), generator=_rng()))
        rows = queries.row.unsqueeze(1).expand_as(queries.valid)[queries.valid]
        assert torch.equal(torch.bincount(rows, minlength=4), counts)


def test_uniform_sampling_follows_the_shares():
    label = torch.tensor([0] * 90 + [3] * 10 + [UNKNOWN] * 100)
    counts = P.query_counts(label, 5, 2000, "uniform", torch.rand(10_000, generator=_rng()))
    assert counts.sum() == 10_000
    assert (counts / 10_000).tolist() == pytest.approx([0.9, 0, 0, 0.1, 0], abs=0.02)
    nothing = torch.full((8,), UNKNOWN)
    assert P.query_counts(nothing, 5, 3, "uniform", torch.rand(15, generator=_rng())).sum() == 0
    with pytest.raises(ValueError, match="uniform numbers"):
        P.query_counts(label, 5, 3, "uniform")


def test_every_position_of_a_row_is_as_likely():
    mask = torch.tensor([[True, False, True, True], [False] * 4, [False, False, False, True]])
    row = torch.tensor([0, 1, 2]).unsqueeze(1).expand(3, 3000)
    position, has = P.draw(mask, row, torch.rand(3, 3000, generator=_rng()))
    assert has.tolist() == [True, False, True]
    assert (torch.bincount(position[0], minlength=4) / 3000).tolist() == pytest.approx(
        [1 / 3, 0, 1 / 3, 1 / 3], abs=0.03
    )
    assert position[1].unique().tolist() == [0]
    assert position[2].unique().tolist() == [3]


def test_the_largest_uniform_number_stays_inside():
    almost = torch.tensor([[1 - 2**-24]])
    position, _ = P.draw(torch.ones(2, 100_000, dtype=torch.bool), torch.tensor([[0]]), almost)
    assert position.item() == 99_999


# --- negatives ------------------------------------------------------------------------------------------------------


def test_candidates_by_hand():
    source, target = P.negative_candidates(
        torch.tensor([0, 1, UNKNOWN]), torch.tensor([0, 1, 1]), torch.tensor([True, True, False]), 2
    )
    assert source.tolist() == [[False, True, False], [True, False, False]]
    assert target.tolist() == [[False, True, False], [True, False, False]]


def test_unknown_positions_are_negatives_only_if_asked_for():
    label, none = torch.tensor([0, 1, UNKNOWN]), torch.zeros(0, dtype=torch.int64)
    source, _ = P.negative_candidates(label, none, none.bool(), 2, ignored=True)
    assert source.tolist() == [[False, True, True], [True, False, True]]


def test_threshold_is_numpys_percentile():
    assert P.confidence_threshold(torch.tensor([[0.1, 0.2], [0.4, 0.8]]), 0.5).item() == pytest.approx(0.3)
    # Nothing lies below the threshold where all are equally sure.
    assert not (torch.ones(9) < P.confidence_threshold(torch.ones(9), 0.5)).any()


@pytest.mark.parametrize("sampling", ["denps", "pooled", "source"])
def test_no_negatives_at_all_cost_nothing(sampling):
    none = torch.zeros(2, 4, dtype=torch.bool)
    index, has = P.place_negatives(none, none, sampling, torch.rand(2, 6, generator=_rng()))
    assert has.tolist() == [False, False]
    query = F.normalize(torch.rand(2, 3, 4, generator=_rng()), dim=-1).requires_grad_()
    key = F.normalize(torch.rand(2, 4, generator=_rng(1)), dim=-1)
    loss = P.info_nce(query, key, torch.rand(8, 4)[index], TAU, has)
    loss.sum().backward()
    assert loss.abs().max() == 0
    assert query.grad.abs().max() == 0


def test_pooled_draws_by_the_sizes_of_the_domains():
    source, target = torch.ones(1, 30, dtype=torch.bool), torch.ones(1, 10, dtype=torch.bool)
    pooled, _ = P.place_negatives(source, target, "pooled", torch.rand(1, 4000, generator=_rng()))
    equal, _ = P.place_negatives(source, target, "denps", torch.rand(1, 4000, generator=_rng()))
    assert (pooled >= 30).float().mean().item() == pytest.approx(0.25, abs=0.03)
    assert (equal >= 30).sum() == 2000


# --- weights --------------------------------------------------------------------------------------------------------

ALL = torch.ones(4, dtype=torch.bool)
CONFIDENCE = torch.tensor([0.95, 0.9, 0.8, 0.5], dtype=torch.float64)


def test_dynamic_weights_by_hand():
    half = P.class_weights(CONFIDENCE, ALL, ALL, 0.5)
    assert half.tolist() == pytest.approx([0.132, 0.187, 0.264, 0.417], abs=6e-4)
    one = P.class_weights(CONFIDENCE, ALL, ALL, 1.0)
    assert one.tolist() == pytest.approx([0.059, 0.118, 0.235, 0.588], abs=6e-4)


def test_the_divisor_cancels():
    doubt = 1 - CONFIDENCE
    for divisor in (doubt.max(), doubt.min(), 7.0):
        raw = (doubt / divisor) ** 0.5
        assert P.class_weights(CONFIDENCE, ALL, ALL, 0.5).tolist() == pytest.approx((raw / raw.sum()).tolist())


def test_absent_and_unused_classes_weigh_nothing():
    present, used = torch.tensor([True, False, True, True]), torch.tensor([True, True, False, True])
    weights = P.class_weights(CONFIDENCE, present, used, 1.0)
    assert weights.tolist() == pytest.approx([0.05 / 0.55, 0, 0, 0.5 / 0.55])
    # As if the confidence of class 1 was 0, whatever number stands there.
    weights = P.class_weights(CONFIDENCE, present, used, 1.0, "max")
    assert weights.tolist() == pytest.approx([0.05 / 1.55, 1 / 1.55, 0, 0.5 / 1.55])


@pytest.mark.parametrize("beta", [0.0, 0.5, 2.0])
def test_confidence_one_falls_back_to_equal_weights(beta):
    used = torch.tensor([True, True, False, False])
    sure = torch.ones(4, dtype=torch.float64)
    assert P.class_weights(sure, ALL, used, beta).tolist() == [0.5, 0.5, 0, 0]
    assert P.class_weights(sure, ~ALL, used, beta).tolist() == [0.5, 0.5, 0, 0]
    assert P.class_weights(sure, ALL, ~ALL, beta).tolist() == [0, 0, 0, 0]


def test_one_sure_class_weighs_nothing_beside_an_unsure_one():
    assert P.class_weights(torch.tensor([1.0, 0.5]), ALL[:2], ALL[:2], 0.5).tolist() == [0, 1]


def test_mean_confidence_keeps_its_digits():
    confidence = torch.full((400_000,), 0.9999)
    label = torch.zeros(400_000, dtype=torch.int64)
    label[:2] = torch.tensor([1, UNKNOWN])
    confidence[0] = 0.25
    mean, present = P.mean_confidence(confidence, label, 3)
    assert (1 - mean[0]).item() == pytest.approx(1e-4, rel=1e-3)
    assert mean[1].item() == 0.25
    assert present.tolist() == [True, True, False]


def test_fixed_and_equal_weights():
    used = torch.tensor([True, False, True, False])
    assert P.fixed_weights(torch.tensor([1.0, 5.0, 3.0, 5.0]), used).tolist() == [0.25, 0, 0.75, 0]
    assert P.equal_weights(used).tolist() == [0.5, 0, 0.5, 0]


def test_each_rank_takes_the_queries_of_its_own_positions(monkeypatch):
    queries = P.Queries(torch.tensor([[0, 5, 3], [4, 2, 1]]), torch.tensor([0, 1]), torch.ones(2, 3, dtype=torch.bool))
    for rank, position, valid in (
        (0, [[0, 0, 0], [0, 2, 1]], [[True, False, False], [False, True, True]]),
        (1, [[0, 2, 0], [1, 0, 0]], [[False, True, True], [True, False, False]]),
    ):
        monkeypatch.setattr(P, "rank", lambda rank=rank: rank)
        own = P.own_queries(queries, 3)
        assert own.position.tolist() == position
        assert own.valid.tolist() == valid
        assert own.row is queries.row


# --- the loss of a pair ---------------------------------------------------------------------------------------------


def test_info_nce_by_hand():
    query, positive = torch.tensor([[[1.0, 0.0]]]), torch.tensor([[1.0, 0.0]])
    negative = torch.tensor([[[0.0, 1.0], [0.0, 1.0]]])
    # exp(1 / tau) against twice exp(0).
    expected = log(1 + 2 * torch.exp(torch.tensor(-5.0)).item())
    assert P.info_nce(query, positive, negative, 0.2).item() == pytest.approx(expected, rel=1e-5)


def test_squared_distance_of_unit_vectors():
    query, positive = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]), torch.tensor([[1.0, 0.0]])
    assert P.squared_distance(query, positive).tolist() == [[0, 2]]


def test_features_of_zero_give_no_nan():
    assert P.prototypes(torch.zeros(3, 4), torch.tensor([0, 0, 1]), 2).isfinite().all()


def test_no_shape_and_no_decision_depends_on_the_data():
    """Fake tensors have shapes but no values: whatever asked for one (and so waited for a device) would raise."""
    with FakeTensorMode():
        label, other = torch.randint(C, (64,)), torch.randint(C, (64,))
        source, target = torch.rand(64, 8), torch.rand(64, 8)
        confidence, features = torch.rand(64), torch.rand(64, 8, requires_grad=True)
        counts = P.query_counts(label, C, N, "uniform", torch.rand(C * N)) + P.query_counts(label, C, N)
        queries = P.place_queries(label, counts, torch.rand(P.query_slots(C, N)))
        masks = P.negative_candidates(label, other, confidence < P.confidence_threshold(confidence, ALPHA), C)
        index, has = P.place_negatives(*masks, "denps", torch.rand(C, M))
        weights = P.class_weights(*P.mean_confidence(confidence, other, C), counts > 0, BETA)
        negative = F.normalize(torch.cat([source, target])[index], dim=-1)
        loss = P.pull_loss(features, queries, P.prototypes(source, label, C), negative, has, weights)
        loss.backward()
        assert features.grad.shape == (64, 8)
        with pytest.raises(DataDependentOutputException):
            loss.item()
