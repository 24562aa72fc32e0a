"""Who is set against whom, and in which order both draw: what published ratios rest on."""

from contextlib import contextmanager

import pytest
from benchmark.painted_peer import WORK, make_case, make_plan

from fastdeploy_diffusion.benchmark.case import OWN, Case
from fastdeploy_diffusion.benchmark.child_process import ChildError
from fastdeploy_diffusion.benchmark.fastest import choose_fastest
from fastdeploy_diffusion.benchmark.report.table import describe_comparison, judge_ratios
from fastdeploy_diffusion.benchmark.result import INTERRUPTED, Comparison, Missing
from fastdeploy_diffusion.benchmark.row import Quality, Row, Samples
from fastdeploy_diffusion.benchmark.summary import summarise
from fastdeploy_diffusion.benchmark.take_turns import choose_pairs, take_turns

LARGER = WORK.model_copy(update={"width": 48})
QUALITY = Quality(psnr=None, ssim=1, relative_errors={})
OURS = Case(painter=OWN, engine="openvino", device="cpu", precision="fp32", work=WORK)
THEIRS = make_case()


def make_row(case, *pictures):
    return Row(case=case, samples=Samples(pictures=pictures), quality=QUALITY, settings={})


def make_own(engine, precision="fp32", work=WORK):
    return Case(painter=OWN, engine=engine, device="cpu", precision=precision, work=work)


def make_peer(precision="fp32", work=WORK):
    return Case(painter="peer", engine="peer", device="cpu", precision=precision, work=work)


def test_the_fastest_of_the_same_precision_is_set_against_a_peer():
    rows = [
        make_row(make_own("paddle"), 3.0, 3.0, 3.0),
        # By its median, not by its luckiest picture or its mean.
        make_row(make_own("openvino"), 1.5, 2.0, 9.0),
        make_row(make_own("onnxruntime"), 1.0, 2.5, 2.5),
        make_row(make_own("onnxruntime", "fp16"), 0.1, 0.1, 0.1),
        make_row(make_peer(), 4.0, 4.0, 4.0),
    ]
    assert choose_pairs(rows) == [(make_own("openvino"), make_peer())]
    assert choose_pairs(rows[::-1]) == [(make_own("openvino"), make_peer())]


def test_where_we_have_none_of_a_precision_the_fastest_of_all_is_taken():
    rows = [
        make_row(make_own("paddle"), 3.0),
        make_row(make_own("openvino", "bf16"), 2.0),
        make_row(make_peer("fp16"), 4.0),
    ]
    assert choose_pairs(rows) == [(make_own("openvino", "bf16"), make_peer("fp16"))]


def test_every_peer_and_every_piece_of_work_has_its_pair():
    rows = [
        make_row(make_own("paddle"), 3.0),
        make_row(make_own("openvino", work=LARGER), 1.0),
        make_row(make_peer(), 4.0),
        make_row(make_peer("bf16"), 4.0),
        make_row(make_peer(work=LARGER), 4.0),
    ]
    assert choose_pairs(rows) == [
        (make_own("paddle"), make_peer()),
        (make_own("paddle"), make_peer("bf16")),
        (make_own("openvino", work=LARGER), make_peer(work=LARGER)),
    ]


def test_who_has_drawn_nothing_has_no_pair():
    own, peer = make_row(make_own("paddle"), 3.0), make_row(make_peer(), 4.0)
    assert choose_pairs([make_row(make_own("openvino")), own, peer]) == [(own.case, peer.case)]
    assert choose_pairs([own, make_row(make_peer())]) == []
    assert choose_pairs([make_row(make_own("paddle")), peer]) == []
    assert choose_pairs([make_row(make_own("paddle", work=LARGER), 1.0), peer]) == []
    assert choose_pairs([own, make_row(make_own("openvino"), 1.0)]) == []


def test_passes_are_tried_on_our_fastest_of_each_piece_of_work():
    rows = [
        make_row(make_own("paddle"), 3.0, 3.0, 3.0),
        make_row(make_own("openvino"), 1.5, 2.0, 9.0),
        make_row(make_own("onnxruntime"), 1.0, 2.5, 2.5),
        make_row(make_own("paddle-eager")),
        make_row(make_own("paddle", work=LARGER), 7.0),
        make_row(make_peer(), 0.1),
    ]
    wanted = [make_own("openvino"), make_own("paddle", work=LARGER)]
    assert choose_fastest(rows) == wanted
    assert choose_fastest(rows[::-1]) == wanted[::-1]
    assert choose_fastest(rows[-1:]) == []


class ScriptedChild:
    """Draws in the given seconds, and notes who did what in which order."""

    def __init__(self, name, seconds, log):
        self.name, self.seconds, self.log = name, iter(seconds), log

    def open(self, task):
        self.log.append((self.name, "open", task))

    def draw(self, prompts, seeds, steps):
        self.log.append((self.name, "draw", prompts, seeds, steps))
        seconds = next(self.seconds)
        if isinstance(seconds, BaseException):
            raise seconds
        return {"seconds": seconds}


class ScriptedPlace:
    """Where two such children work."""

    def __init__(self, runs, seconds):
        self.plan = make_plan("no adapter", runs=runs)
        self.seconds, self.log, self.alive, self.shown = seconds, [], [], []

    def show(self, what):
        self.shown.append(what)

    def describe_task(self, case):
        return {"precision": case.precision}

    @contextmanager
    def start(self, case):
        name = "ours" if case.is_own else "theirs"
        self.alive.append(name)
        yield ScriptedChild(name, self.seconds[name], self.log)
        self.alive.remove(name)


def test_who_begins_a_turn_alternates_and_the_first_one_is_not_timed():
    place = ScriptedPlace(4, {"ours": [90, 1, 2, 4, 5], "theirs": [80, 3, 8, 4, 5]})
    comparison = take_turns(place, OURS, THEIRS)
    assert [entry[:2] for entry in place.log[:2]] == [("ours", "open"), ("theirs", "open")]
    assert [entry[0] for entry in place.log[2:]] == [
        *("ours", "theirs"),
        *("theirs", "ours"),
        *("ours", "theirs"),
        *("theirs", "ours"),
        *("ours", "theirs"),
    ]
    # The same prompts, seeds and steps for both, as many as there are pictures at once.
    assert {str(entry[2:]) for entry in place.log[2:]} == {"(['a star', 'a star'], [3, 4], 2)"}
    assert comparison == Comparison(
        ours=OURS, theirs=THEIRS, ours_seconds=(1, 2, 4, 5), theirs_seconds=(3, 8, 4, 5)
    )
    assert comparison.ratios == (3, 4, 1, 1)
    assert place.alive == []
    assert len(place.shown) == 6


@pytest.mark.parametrize(
    ("end", "reason"),
    [(ChildError("it crashed"), "it crashed"), (KeyboardInterrupt(), INTERRUPTED)],
)
def test_turns_that_end_early_keep_whole_pairs(end, reason):
    # Theirs begins the second turn that counts, and ours does not come to draw in it.
    place = ScriptedPlace(4, {"ours": [9, 1, 2], "theirs": [9, 3, 5, end]})
    comparison = take_turns(place, OURS, THEIRS)
    assert comparison.missing == reason
    assert (comparison.ours_seconds, comparison.theirs_seconds) == ((1, 2), (3, 5))
    place = ScriptedPlace(4, {"ours": [9, end], "theirs": [9, 3]})
    missing = take_turns(place, OURS, THEIRS)
    assert isinstance(missing, Missing)
    assert missing.reason == reason
    assert missing.case.startswith("openvino fp32 and painted fp32 in turns, 24 x 16")


def compare(*ratios, missing=""):
    return Comparison(
        ours=OURS,
        theirs=THEIRS,
        ours_seconds=(1.0,) * len(ratios),
        theirs_seconds=ratios,
        missing=missing,
    )


@pytest.mark.parametrize(
    ("ratios", "verdict"),
    [
        ((2.0,), "one pair shows little"),
        ((1.01, 1.02, 1.03), "faster"),
        ((0.97, 0.98, 0.99), "slower"),
        # Half of the pairs, not all of them: 1 lies between the quarters, or on one of them.
        ((0.98, 0.99, 1.01, 1.02), "no difference shown"),
        ((0.98, 0.99, 1.01, 1.02, 1.03), "no difference shown"),
        ((0.97, 0.98, 0.99, 1.01, 1.02), "no difference shown"),
        ((1.0, 1.0, 1.0, 1.02), "no difference shown"),
        ((0.98, 1.0, 1.0, 1.0), "no difference shown"),
        ((0.5, 1.01, 1.02, 1.03, 1.04, 1.05), "faster"),
        ((2.0, 2.2, 2.4), "faster"),
        ((2.0, 2.2, 2.5), "the pairs differ too much to rely on it"),
    ],
)
def test_what_pairs_show(ratios, verdict):
    assert judge_ratios(summarise(ratios)) == verdict
    assert describe_comparison(compare(*ratios)).endswith(f": {verdict}")


def test_a_comparison_in_words():
    assert describe_comparison(compare(3.0, 3.1, 3.2, 3.3, 3.5, missing="it crashed")) == (
        "openvino fp32 is 3.200 times as fast as painted fp32 (24 x 16, batch 2, 2 steps, "
        "1 thread; 5 pairs, half of them within 3.100 to 3.300): faster; it crashed"
    )
