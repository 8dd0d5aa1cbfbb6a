"""Parts of the speech workload: net, cost, generated utterances, LibriSpeech folders."""
