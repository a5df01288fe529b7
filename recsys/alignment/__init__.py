"""A-LLMRec (KDD 2024): the vectors of a frozen recommender and the text of its items in one space, and that space in the words of a language model."""
