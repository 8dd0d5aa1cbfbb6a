"""Parts of the genomics workload: net, cost, generated genome, FASTA and VCF files."""
