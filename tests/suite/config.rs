//! Whether the suite sees what the running kernel was built with.

use crate::support::{is_set, of_running_kernel};

#[test]
fn an_option_is_set_if_it_is_built_in_or_a_module() {
    let config = "CONFIG_NET=y\nCONFIG_UHID=m\n# CONFIG_IPV6 is not set\nCONFIG_HZ=250\n";
    for (option, expected) in
        [("CONFIG_NET", true), ("CONFIG_UHID", true), ("CONFIG_IPV6", false), ("CONFIG_N", false)]
    {
        assert_eq!(is_set(config, option), expected, "{option}");
    }
    // The kernels that this runs on have a network, and none has this.
    if let Some(config) = of_running_kernel() {
        assert!(is_set(&config, "CONFIG_NET"));
        assert!(!is_set(&config, "CONFIG_OF_A_NETWORK"));
    }
}
