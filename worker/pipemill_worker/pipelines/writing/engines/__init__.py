"""Other engines that write texts, for queues that choose one: vLLM, and transformers' own continuous batching.

An engine writes rows of tokens and knows neither jobs nor pipelines: ``Routed`` gives it the prompts whose parameters
it knows, and all others to our own writer.
"""
