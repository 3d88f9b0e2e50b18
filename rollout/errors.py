"""Failures of our own infrastructure, named by the boundary they happened at; never the agent's doing."""


class InfrastructureError(Exception):
    """Something of ours failed; the action is retried or dropped and counted, never rewarded."""


class ServerError(InfrastructureError):
    """The policy server did not start, answer, or take new weights."""


class ExecutorError(InfrastructureError):
    """The sandbox could not be made or was lost; nothing is known about the script."""


class CoderError(InfrastructureError):
    """The coder's endpoint did not give an answer."""


class ExpertError(InfrastructureError):
    """The expert's endpoint did not give an answer."""


class CorruptRecord(ValueError):
    """A stored trajectory, journal or blob does not read as what it should be."""


class BudgetSpent(ValueError):
    """The next request may cost more than the configuration allows; no failure, so nothing is tried again."""


class EndpointRefused(ValueError):
    """An endpoint will not answer until its user puts something right: a key, an address, an account."""


class PromptTooLong(ValueError):
    """A prompt and the answer asked for do not fit the context of the model behind an endpoint."""
