"""Roll out an episode of a task by the package verifiers, against a chat endpoint.

    python verifiers_rollout.py ADDRESS MODEL FOLDER

prints the outputs as JSON: reward, metrics, stop condition, error, and the conversation.
"""

import asyncio
import json
import sys

if __name__ == "__main__":
    from verifiers.types import ClientConfig

    from mlagent_jax.env.verifiers_env import load_environment

    address, model, folder = sys.argv[1:]
    env = load_environment("house_price", num_episodes=2, max_steps=3, folder=folder)
    client = ClientConfig(api_key_var="MLAGENT_TEST_KEY", api_base_url=address)
    try:
        found = asyncio.run(
            env.evaluate(client, model, {"max_tokens": 64}, rollouts_per_example=2, state_columns=["trajectory"])
        )
    finally:
        env.env.close()
    kept = ("reward", "metrics", "stop_condition", "error")
    print(
        json.dumps(
            [
                {name: output[name] for name in kept}
                | {"conversation": [[message["role"], message["content"]] for message in output["completion"]]}
                | {"steps": [step["reward"] for step in output["trajectory"]]}
                for output in found["outputs"]
            ],
            default=str,
        )
    )
