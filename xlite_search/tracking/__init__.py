"""MLflow: every run of every study, for people to look at. A mirror of the records, never read back as truth.

One experiment per study, one parent run, one child run per trial (found again by the tag `xlite.trial_key`); teachers
and final trainings have an experiment each. `sync` takes a record and makes MLflow say the same: it creates the run if
there is none, adds the epochs that are missing and none twice, and sets the status. So live tracking, a restart after a
kill, and a database that was away are one and the same call. A single background thread writes; training never waits.
"""
