"""Responses that the real policy server constrains by a grammar."""

import pytest

from rollout.errors import ServerError
from rollout.inference.client import PolicyClient
from tasks.action import Action
from tasks.response import parse_response
from tasks.response_grammar import response_grammar

PROMPT = [(37 * i) % 500 for i in range(40)]


@pytest.mark.vllm
def test_a_grammar_makes_every_response_of_random_weights_an_exact_action(policy_server):
    encode, decode = policy_server.tokenizer().encode, policy_server.tokenizer().decode

    async def body(client: PolicyClient):
        await client.check_grammars(encode, decode)
        return await client.sample(PROMPT, num_samples=8, seed=1)

    for completion in policy_server.run(body, max_tokens=900, grammar=response_grammar(280)):
        parsed = parse_response(decode(completion.token_ids))
        assert isinstance(parsed.action, Action) and parsed.is_exact
        assert completion.finish_reason == "stop"
        assert completion.token_ids[-1] == policy_server.tokenizer().eos_id
    # Base models state an end token that is not that of a turn. It is no part of the text.
    others = [policy_server.tokenizer().pad_id]
    for completion in policy_server.run(body, max_tokens=900, grammar=response_grammar(280), stop_ids=others):
        parsed = parse_response(decode(completion.token_ids))
        assert isinstance(parsed.action, Action) and parsed.is_exact
        assert policy_server.tokenizer().eos_id not in completion.token_ids
        assert len(completion.logprobs) == len(completion.token_ids)
    free = policy_server.run(lambda client: client.sample(PROMPT, num_samples=8, seed=1), max_tokens=900)
    assert not any(isinstance(parse_response(decode(one.token_ids)).action, Action) for one in free)


@pytest.mark.vllm
def test_a_server_that_ignores_or_refuses_grammars_is_named_with_the_remedy(policy_server):
    async def body(client: PolicyClient):
        with pytest.raises(ServerError, match="ignores grammars: got 'free text', expected constrained; start it with"):
            await client.check_grammars(policy_server.tokenizer().encode, lambda ids: "free text")
        with pytest.raises(ServerError, match="answered 400.*[Gg]rammar"):
            await client.sample(PROMPT, num_samples=1, seed=1)

    policy_server.run(body, grammar="root ::= (")
