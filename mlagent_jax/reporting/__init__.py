"""The summary, statistics, figures and HTML report of a run."""
