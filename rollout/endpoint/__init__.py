"""Chat models behind OpenAI-compatible endpoints: requests, retries, rate limits, budgets, and a journal."""

from rollout.endpoint.client import Answer, ChatEndpoint
from rollout.endpoint.exchanges import Exchanges
from rollout.endpoint.spending import Budget, Prices

__all__ = ["Answer", "Budget", "ChatEndpoint", "Exchanges", "Prices"]
