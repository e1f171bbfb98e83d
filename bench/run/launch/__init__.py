"""Many trainings as jobs: one after the other, side by side on this machine, or on a Slurm cluster.

Every job runs `bench train ROW --seed N`, which measures nothing twice: it claims its record in the store, resumes from
its checkpoint, and exits 75 when it was told to stop and wants to be run again. What this package adds is which jobs
are missing (`plan`), what they will cost (`cost`), and who runs them again: here `bench.run.pool` with
`training_process`, on a cluster `slurm` with `slurm_job`.

Shared store: records appear whole or not at all on any file system. That a training never runs twice at once rests on
flock, which local disks, NFS 4 (NFS 3 with lockd), BeeGFS and GPFS honour between machines, Lustre when mounted with
`-o flock`. Where it is not honoured, two launches of the same table may train the same thing twice; the records stay
whole, and the last one stands.
"""
