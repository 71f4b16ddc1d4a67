//! The daemon's end of the datapath helper (`caregate-datapathd`), which holds the BPF maps.
