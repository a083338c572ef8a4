"""Curves that a resumed run goes on with."""

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from train.trackers import TENSORBOARD_FOLDER, tensorboard_callback


def test_steps_after_the_checkpoint_of_a_lost_run_are_shown_once(tmp_path):
    for resumed_at, last, loss in ((0, 6, 1.0), (4, 8, 2.0)):  # lost at step 6, went on from 4
        writer = tensorboard_callback(tmp_path, step=resumed_at).tb_writer
        for step in range(resumed_at + 1, last + 1):
            writer.add_scalar("train/loss", loss, step)
        writer.close()
    events = EventAccumulator(str(tmp_path / TENSORBOARD_FOLDER)).Reload()
    shown = [(event.step, event.value) for event in events.Scalars("train/loss")]
    assert shown == [(step, 1.0 if step <= 4 else 2.0) for step in range(1, 9)]
