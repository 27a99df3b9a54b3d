#!/bin/sh
# Stands for a Python interpreter with PyTorch and PEFT: -c SCRIPT --shape S --sequences N --threads T [--checkpoint]
case "$1 $3 $4 $5 $6 $7 $8 $9" in
"-c --shape nano --sequences 1 --threads 1 ") speed=20 ;;
"-c --shape nano --sequences 1 --threads 1 --checkpoint") speed=5 ;;
"-c --shape nano --sequences 2 "*) echo "Traceback" >&2; echo "ModuleNotFoundError: No module named 'peft'" >&2; exit 1 ;;
*) echo "what is $*?"; exit 0 ;;
esac
echo "a warning of some library"
echo "{\"tokens_per_s\": $speed, \"peak_resident_bytes\": ${MALLOC_TRIM_THRESHOLD_}}"
