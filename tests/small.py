"""Settings of a run that takes a second: the real data, few of them, and small networks."""

from conftest import REPOSITORY

SMALL = [
    f"data.root={REPOSITORY / 'data'}",
    "data.train_size=300",
    "data.batch_size=16",
    "data.val_size=500",
    "optimizer.lr=0.01",
    "student=mlp",
    "student.widths=[16]",
    "teacher/network=mlp",
    "teacher.network.widths=[32]",
    "teacher.trainer.max_epochs=1",
    "teacher.data.train_size=2000",
    "trainer=cpu",
    "trainer.max_epochs=2",
    "trainer.log_every_n_steps=2",
]
