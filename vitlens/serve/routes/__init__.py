"""The paths of the service, by who speaks so: OpenAI's clients, ours, Cohere's and Weaviate's, and who watches over it."""
