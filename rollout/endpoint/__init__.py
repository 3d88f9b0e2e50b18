"""Models behind OpenAI-compatible endpoints: requests, retries, limits, budgets, and the journal of all exchanges."""

from rollout.endpoint.client import Answer, ChatEndpoint
from rollout.endpoint.exchanges import Exchanges
from rollout.endpoint.spending import Budget, Prices

__all__ = ["Answer", "Budget", "ChatEndpoint", "Exchanges", "Prices"]
