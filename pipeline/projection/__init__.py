"""The projection of a corpus, whoever runs it: plan, work, publishing."""
