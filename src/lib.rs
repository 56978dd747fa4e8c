//! BPF workqueues (`bpf_wq`, Linux 6.10+), safe and portable.
