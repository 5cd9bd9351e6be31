// Unicode IDNA compatibility processing (UTS #46) for host names that are not plain ASCII.
import tr46 from "tr46";

export const toASCII = tr46.toASCII;
export const toUnicode = tr46.toUnicode;
