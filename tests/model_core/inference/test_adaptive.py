"""Which window is taken: pure integers, checked against the networks' own rule."""

import math

import pytest

from model_core.errors import MemoryLimitError, ShapeError
from model_core.inference.adaptive import Rule, choose_plan
from model_core.inference.memory import MIB, NetworkSize, StudySize, peak_bytes
from model_core.inference.windows import WindowPlan
from model_core.networks.build import check_window
from model_core.networks.segmamba import PUBLISHED_NUM_SLICES, SegMamba

BRAIN = (132, 156, 120)
STUDY = StudySize(native=(240, 240, 155), box=BRAIN, image=BRAIN)
CARD = WindowPlan(window=(64, 64, 64), overlap=0.25, batch=2)
RULE = Rule(multiple=16)
SIZE = NetworkSize(family="segmamba", width=16, parameters=1000, channels=4, outputs=3, half=False)


def choose(wanted="card", *, limit=None, card=CARD, rule=RULE, size=SIZE):
    return choose_plan(wanted, card, rule, network=size, study=STUDY, limit=limit)


def needs(plan, size=SIZE):
    return peak_bytes(size, STUDY, plan)


@pytest.mark.parametrize(
    ("shape", "window"),
    [
        ((132, 156, 120), (144, 160, 128)),
        ((144, 160, 128), (144, 160, 128)),
        ((145, 33, 32), (160, 48, 32)),
        ((5, 17, 40), (32, 32, 48)),  # two positions a side at the deepest level
    ],
)
def test_the_window_over_a_box_is_the_next_multiple(shape, window):
    assert RULE.window_over(shape) == window


def test_a_network_without_a_rule_takes_the_box_itself():
    assert Rule().window_over((3, 1, 7)) == (3, 1, 7)


@pytest.mark.parametrize("shape", [BRAIN, (155, 190, 141), (97, 161, 113), (20, 20, 20)])
def test_fixed_slices_divide_the_tokens_of_every_stage(shape):
    """And no smaller window within one step a side would do."""
    rule = Rule(multiple=16, num_slices=PUBLISHED_NUM_SLICES)
    network = SegMamba(
        features=(8, 8, 8, 8), hidden=8, depths=(1, 1, 1, 1), num_slices=PUBLISHED_NUM_SLICES
    )
    window = rule.window_over(shape)
    check_window(network, window)
    assert all(side >= size for side, size in zip(window, shape, strict=True))
    least = [max(2, math.ceil(size / 16)) * 16 for size in shape]
    for axis in range(3):
        smaller = tuple(s - 16 if a == axis else s for a, s in enumerate(window))
        if smaller[axis] >= least[axis]:
            with pytest.raises(ShapeError):
                check_window(network, smaller)


def test_slices_that_nothing_near_divides_give_no_window():
    rule = Rule(multiple=16, num_slices=(10_007,))
    assert rule.window_over(BRAIN) is None
    chosen = choose("whole", rule=rule)
    assert (chosen.choice, chosen.plan) == ("card", CARD)
    assert "no window that the network takes" in chosen.warnings[0]


def test_the_cards_plan_is_taken_unless_another_is_asked_for():
    chosen = choose()
    assert (chosen.choice, chosen.plan, chosen.warnings) == ("card", CARD, ())


def test_one_window_over_the_brain_is_taken_where_it_fits():
    chosen = choose("whole")
    assert chosen.choice == "whole"
    assert chosen.plan.window == (144, 160, 128)
    assert chosen.plan.batch == 1
    needed = needs(chosen.plan)
    assert choose("whole", limit=needed).choice == "whole"
    assert choose("whole", limit=needed - 1).choice == "card"


def test_falling_back_to_the_card_is_said_with_both_numbers():
    needed = needs(choose("whole").plan)
    chosen = choose("whole", limit=needed - MIB)
    assert chosen.plan == CARD
    (text,) = chosen.warnings
    assert f"{needed // MIB} MiB" in text
    assert f"{(needed - MIB) // MIB} MiB are allowed" in text


def test_batches_go_before_the_run_is_refused_and_the_window_never_does():
    alone = WindowPlan(window=CARD.window, overlap=CARD.overlap)
    limit = needs(CARD) - 1
    chosen = choose(limit=limit)
    assert chosen.plan == alone
    assert choose(limit=needs(alone)).plan == alone
    with pytest.raises(MemoryLimitError, match="Raise the limit") as error:
        choose(limit=needs(alone) - 1)
    assert error.value.argument == "memory_limit_mb"


def test_bfloat16_is_named_as_a_way_out_of_float32_only():
    with pytest.raises(MemoryLimitError, match="run in bfloat16"):
        choose(limit=MIB)
    half = NetworkSize(
        family="segmamba", width=16, parameters=1000, channels=4, outputs=3, half=True
    )
    with pytest.raises(MemoryLimitError) as error:
        choose(limit=MIB, size=half)
    assert "bfloat16" not in str(error.value)
