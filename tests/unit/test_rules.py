"""The rules that settle an interrupted run, on their own."""

from hypothesis import given
from hypothesis import strategies as st

from smooth_orchestrator.events import Decision
from smooth_orchestrator.rules import Action, Shown, action, verdict

_OLD_AFTER = {Action.ROLL_BACK, Action.REVERSE}
_NEW_AFTER = {Action.COMMIT, Action.RUN_FORWARD}
_SHOWN = st.lists(st.sampled_from(Shown), min_size=1, max_size=5)
_DECIDED = st.none() | st.sampled_from(Decision)


def _is_new(shown: Shown, done: Action) -> bool:
    return done in _NEW_AFTER or (done is Action.LEAVE and shown is Shown.DONE)


@given(decided=_DECIDED, shown=_SHOWN, is_known=st.booleans())
def test_once_settled_all_databases_are_new_or_all_are_old(
    *, decided: Decision | None, shown: list[Shown], is_known: bool
) -> None:
    made = verdict(decided, shown, is_known=is_known)
    if made is not None:
        ends = {_is_new(each, action(made, each)) for each in shown}
        assert ends == {made is Decision.COMMIT}


@given(st.sampled_from(Decision))
def test_what_shows_nothing_is_left_alone_where_nothing_says_that_it_belonged_to_the_run(decision: Decision) -> None:
    assert action(decision, Shown.NOTHING, belongs=False) is Action.LEAVE
    others = [shown for shown in Shown if shown is not Shown.NOTHING]
    assert [action(decision, each, belongs=False) for each in others] == [action(decision, each) for each in others]


@given(decision=st.sampled_from(Decision), shown=st.sampled_from(Shown))
def test_what_is_committed_is_left_to_an_operator_where_nobody_knows_what_to_take_back(
    *, decision: Decision, shown: Shown
) -> None:
    is_asked = decision is Decision.ABORT and shown is Shown.DONE
    assert action(decision, shown, is_told=False) is (Action.ASK if is_asked else action(decision, shown))
    accepted = action(decision, shown, is_told=False, is_accepted=True)
    assert accepted is (Action.UNMARK if is_asked else action(decision, shown))


@given(shown=_SHOWN, is_known=st.booleans())
def test_a_decided_commit_is_never_compensated(*, shown: list[Shown], is_known: bool) -> None:
    made = verdict(Decision.COMMIT, shown, is_known=is_known)
    assert made is Decision.COMMIT
    assert not {action(made, each) for each in shown} & _OLD_AFTER


@given(decided=st.sampled_from(Decision), shown=_SHOWN, is_known=st.booleans())
def test_what_was_decided_stays_so(*, decided: Decision, shown: list[Shown], is_known: bool) -> None:
    assert verdict(decided, shown, is_known=is_known) is decided


@given(_SHOWN)
def test_without_a_decision_nothing_new_is_made_unless_a_marker_proves_one(shown: list[Shown]) -> None:
    made = verdict(None, shown, is_known=True)
    assert made is (Decision.COMMIT if Shown.DONE in shown else Decision.ABORT)


@given(_SHOWN)
def test_of_a_lost_journal_prepared_transactions_or_steps_alone_decide_nothing(shown: list[Shown]) -> None:
    is_unclear = {Shown.PREPARED, Shown.STEPS} & {*shown} and Shown.DONE not in shown
    assert (verdict(None, shown, is_known=False) is None) is bool(is_unclear)
