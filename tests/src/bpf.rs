//! Small eBPF programs that are no ELF objects, and ways to run one: on live frames, as a wire would bring them, and over and over on one
//! frame with the time it takes (`bpf(2)`, `Documentation/bpf/bpf_prog_run.rst`).
//!
//! A socket sends no flood that measures a filter in XDP: the kernel makes a buffer of each frame before a veth's other end may drop it,
//! and that alone costs more than the drop. A program that redirects, run on live frames (Linux 5.18), hands the other end's driver what a
//! network card would.

#![expect(unsafe_code, reason = "bpf(2) has no safe wrapper for a program that is no ELF object")]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::mpsc;

const BPF_MAP_CREATE: libc::c_int = 0;
const BPF_MAP_UPDATE_ELEM: libc::c_int = 2;
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_TEST_RUN: libc::c_int = 10;
const BPF_PROG_GET_FD_BY_ID: libc::c_int = 13;
const BPF_LINK_CREATE: libc::c_int = 28;
/// `BPF_XDP` of `enum bpf_attach_type`.
const ATTACH_XDP: u32 = 37;
const XDP_FLAGS_SKB_MODE: u32 = 2;
/// The first interface of each network namespace.
const LOOPBACK: u32 = 1;
const BPF_MAP_TYPE_PROG_ARRAY: u32 = 3;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_F_TEST_XDP_LIVE_FRAMES: u32 = 2;
const BPF_FUNC_GET_PRANDOM_U32: u32 = 7;
const BPF_FUNC_TAIL_CALL: u32 = 12;
const BPF_FUNC_REDIRECT: u32 = 23;
/// Frames that the kernel hands over together; its own limit is 256.
const BATCH: u32 = 64;

/// `XDP_ABORTED`
pub const ABORTED: u32 = 0;
/// `XDP_DROP`
pub const DROP: u32 = 1;

/// The first part of `union bpf_attr` for `BPF_PROG_LOAD`.
#[repr(C)]
struct LoadAttributes {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    /// Programs that call one another must be alike in it (Linux 6.18).
    expected_attach_type: u32,
}

/// `union bpf_attr` for `BPF_PROG_TEST_RUN`.
#[repr(C)]
#[derive(Default)]
struct RunAttributes {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    padding: u32,
}

/// `union bpf_attr` for `BPF_LINK_CREATE`.
#[repr(C)]
struct LinkAttributes {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
}

/// The first part of `union bpf_attr` for `BPF_MAP_CREATE`.
#[repr(C)]
struct MapAttributes {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
}

/// `union bpf_attr` for `BPF_MAP_UPDATE_ELEM`.
#[repr(C)]
struct ElementAttributes {
    map_fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// One instruction (`struct bpf_insn`).
#[must_use]
pub const fn instruction(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> u64 {
    let (o, i) = (offset.to_ne_bytes(), immediate.to_ne_bytes());
    let registers = if cfg!(target_endian = "little") { from << 4 | to } else { to << 4 | from };
    u64::from_ne_bytes([code, registers, o[0], o[1], i[0], i[1], i[2], i[3]])
}

const fn call(function: u32) -> u64 {
    instruction(0x85, 0, 0, 0, function.cast_signed())
}

const fn set(register: u8, immediate: i32) -> u64 {
    instruction(0xb7, register, 0, 0, immediate)
}

const fn copy(to: u8, from: u8) -> u64 {
    instruction(0xbf, to, from, 0, 0)
}

const EXIT: u64 = instruction(0x95, 0, 0, 0, 0);
/// `r2` and `r3` are a frame's first byte and its end (`struct xdp_md`); `r6` keeps the context.
const FRAME: [u64; 3] = [copy(6, 1), instruction(0x61, 2, 1, 0, 0), instruction(0x61, 3, 1, 4, 0)];

/// Jumps so far where the frame has not so many bytes.
const fn unless_bytes(bytes: i32, jump: i16) -> [u64; 3] {
    [copy(4, 2), instruction(0x07, 4, 0, 0, bytes), instruction(0x2d, 4, 3, jump, 0)]
}

fn bpf<T>(command: libc::c_int, attributes: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: the attributes are `size_of::<T>()` bytes whose pointers are to memory that outlives the call.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn address<T: ?Sized>(of: &T) -> u64 {
    std::ptr::from_ref(of).cast::<u8>() as usize as u64
}

fn owned(descriptor: libc::c_long) -> io::Result<OwnedFd> {
    let descriptor = i32::try_from(descriptor).map_err(io::Error::other)?;
    // SAFETY: a new descriptor that nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

fn number(descriptor: &impl AsRawFd) -> io::Result<u32> {
    u32::try_from(descriptor.as_raw_fd()).map_err(io::Error::other)
}

fn short(length: usize) -> io::Result<u32> {
    u32::try_from(length).map_err(io::Error::other)
}

/// Loads an XDP program.
///
/// # Errors
/// The kernel's.
pub fn load(program: &[u64]) -> io::Result<OwnedFd> {
    let mut attributes = LoadAttributes {
        prog_type: BPF_PROG_TYPE_XDP,
        insn_cnt: short(program.len())?,
        insns: address(program),
        license: address(c"GPL".to_bytes_with_nul()),
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: 0,
        prog_name: [0; 16],
        prog_ifindex: 0,
        expected_attach_type: ATTACH_XDP,
    };
    owned(bpf(BPF_PROG_LOAD, &mut attributes)?)
}

/// `return XDP_DROP;`
///
/// # Errors
/// As [`load`].
pub fn drops() -> io::Result<OwnedFd> {
    load(&[set(0, DROP.cast_signed()), EXIT])
}

/// `return bpf_redirect(interface, 0);`
///
/// # Errors
/// As [`load`].
pub fn redirect(interface: u32) -> io::Result<OwnedFd> {
    load(&[set(1, interface.cast_signed()), set(2, 0), call(BPF_FUNC_REDIRECT), EXIT])
}

/// The same, after four random bytes were put at `at` of the frame.
///
/// # Errors
/// As [`load`].
pub fn redirect_varied(interface: u32, at: i16) -> io::Result<OwnedFd> {
    let mut program = vec![copy(6, 1), call(BPF_FUNC_GET_PRANDOM_U32), copy(1, 6)];
    program.extend(FRAME);
    program.extend(unless_bytes(i32::from(at) + 4, 1));
    program.push(instruction(0x63, 2, 0, at, 0));
    program.extend([set(1, interface.cast_signed()), set(2, 0), call(BPF_FUNC_REDIRECT), EXIT]);
    load(&program)
}

/// What any filter does at the least: Ethernet, IPv4 with its header's length, the transport's ports are read, each after it was seen to be
/// within the frame; then it drops. What is none of that it passes.
///
/// # Errors
/// As [`load`].
pub fn parses_and_drops() -> io::Result<OwnedFd> {
    const IPV4: i32 = 0x0008;
    let mut program = FRAME.to_vec();
    // Behind the three comparisons and all else stands `return XDP_PASS`.
    program.extend(unless_bytes(34, 19));
    program.extend([instruction(0x69, 5, 2, 12, 0), instruction(0x55, 5, 0, 17, IPV4)]);
    // The header's length: its low four bits times four.
    program.extend([instruction(0x71, 5, 2, 14, 0), instruction(0x57, 5, 0, 0, 0x0f)]);
    program.extend([instruction(0x67, 5, 0, 0, 2), instruction(0xa5, 5, 0, 13, 20)]);
    // TCP or UDP.
    program.extend([
        instruction(0x71, 7, 2, 23, 0),
        instruction(0x15, 7, 0, 1, 6),
        instruction(0x55, 7, 0, 10, 17),
    ]);
    // Both ports, behind the header.
    program.extend([instruction(0x0f, 2, 5, 0, 0), copy(4, 2), instruction(0x07, 4, 0, 0, 14 + 4)]);
    program.push(instruction(0x2d, 4, 3, 6, 0));
    program.extend([instruction(0x69, 8, 2, 14, 0), instruction(0x69, 9, 2, 16, 0)]);
    // What was read has to be used, as a filter would.
    program.extend([instruction(0x0f, 8, 9, 0, 0), instruction(0x15, 8, 0, 2, 0x0001_ffff)]);
    program.extend([set(0, DROP.cast_signed()), EXIT]);
    program.extend([set(0, 2), EXIT]);
    load(&program)
}

/// A program that adds one to the four bytes at `at` of the frame and goes on with another. Run over and over it shows the other one a
/// frame that it has never seen, each time.
#[derive(Debug)]
pub struct Varied {
    program: OwnedFd,
    _next: OwnedFd,
}

impl Varied {
    /// In front of a program.
    ///
    /// # Errors
    /// The kernel's.
    pub fn before(next: &impl AsRawFd, at: i16) -> io::Result<Self> {
        let mut map =
            MapAttributes { map_type: BPF_MAP_TYPE_PROG_ARRAY, key_size: 4, value_size: 4, max_entries: 1 };
        let map = owned(bpf(BPF_MAP_CREATE, &mut map)?)?;
        let (key, value) = (0u32, number(next)?);
        let mut element = ElementAttributes {
            map_fd: number(&map)?,
            padding: 0,
            key: address(&key),
            value: address(&value),
            flags: 0,
        };
        bpf(BPF_MAP_UPDATE_ELEM, &mut element)?;
        let mut program = FRAME.to_vec();
        program.extend(unless_bytes(i32::from(at) + 4, 3));
        program.extend([
            instruction(0x61, 5, 2, at, 0),
            instruction(0x07, 5, 0, 0, 1),
            instruction(0x63, 2, 5, at, 0),
        ]);
        // The map's address is two instructions, of which the first says that its number is a descriptor.
        let map_word = i32::try_from(number(&map)?).map_err(io::Error::other)?;
        program.extend([
            copy(1, 6),
            instruction(0x18, 2, 1, 0, map_word),
            0,
            set(3, 0),
            call(BPF_FUNC_TAIL_CALL),
        ]);
        program.extend([set(0, ABORTED.cast_signed()), EXIT]);
        Ok(Self { program: load(&program)?, _next: map })
    }
}

impl AsRawFd for Varied {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.program.as_raw_fd()
    }
}

/// The loaded program with this number.
///
/// # Errors
/// The kernel's.
pub fn by_id(id: u32) -> io::Result<OwnedFd> {
    owned(bpf(BPF_PROG_GET_FD_BY_ID, &mut [id, 0, 0])?)
}

/// What a run gave.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    /// The program's last verdict.
    pub verdict: u32,
    /// Nanoseconds of one run, the mean of all.
    pub ns: u32,
}

/// Runs a program so many times on one frame, which keeps what it writes there.
///
/// # Errors
/// The kernel's.
pub fn time(program: &impl AsRawFd, frame: &[u8], repeat: u32) -> io::Result<Run> {
    let mut attributes = RunAttributes {
        prog_fd: number(program)?,
        data_size_in: short(frame.len())?,
        data_in: address(frame),
        repeat,
        ..RunAttributes::default()
    };
    bpf(BPF_PROG_TEST_RUN, &mut attributes)?;
    Ok(Run { verdict: attributes.retval, ns: attributes.duration })
}

/// Runs a program on so many live frames; where it redirects they go out.
///
/// # Errors
/// The kernel's.
pub fn send(program: &impl AsRawFd, frame: &[u8], frames: u32) -> io::Result<()> {
    let mut attributes = RunAttributes {
        prog_fd: number(program)?,
        data_size_in: short(frame.len())?,
        data_in: address(frame),
        repeat: frames,
        flags: BPF_F_TEST_XDP_LIVE_FRAMES,
        batch_size: BATCH,
        ..RunAttributes::default()
    };
    bpf(BPF_PROG_TEST_RUN, &mut attributes).map(drop)
}

/// Attaches a program to an interface for as long as the result lives.
///
/// # Errors
/// The kernel's; `EBUSY` where there is one already.
pub fn attach(program: &impl AsRawFd, interface: u32) -> io::Result<OwnedFd> {
    link(program, interface, 0)
}

fn link(program: &impl AsRawFd, interface: u32, flags: u32) -> io::Result<OwnedFd> {
    let mut attributes = LinkAttributes {
        prog_fd: number(program)?,
        target_ifindex: interface,
        attach_type: ATTACH_XDP,
        flags,
    };
    owned(bpf(BPF_LINK_CREATE, &mut attributes)?)
}

/// Attaches the program where nothing ever comes by: to the loopback of a network namespace of its own, which a sleeping thread
/// holds. A program that is attached nowhere is put into the kernel's table of XDP programs before each run and taken out after it,
/// and waits for all processors both times, 25 ms in all.
///
/// # Errors
/// The kernel's.
pub fn settle(program: &OwnedFd) -> io::Result<()> {
    let program = program.try_clone()?;
    let (done, is_done) = mpsc::channel();
    std::thread::spawn(move || {
        let apart = own_network();
        let link = apart.and_then(|()| link(&program, LOOPBACK, XDP_FLAGS_SKB_MODE));
        let keeps = link.is_ok();
        if done.send(link.as_ref().map(drop).map_err(|error| io::Error::from(error.kind()))).is_ok() && keeps
        {
            loop {
                std::thread::park();
            }
        }
    });
    is_done.recv().map_err(io::Error::other)?
}

fn unshare(what: libc::c_int) -> io::Result<()> {
    // SAFETY: no memory.
    if unsafe { libc::unshare(what) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// This thread, and what it starts from now on, gets a network namespace of its own.
///
/// # Errors
/// The kernel's.
pub fn own_network() -> io::Result<()> {
    unshare(libc::CLONE_NEWNET)
}

/// This thread, and what it starts from now on, gets mounts of its own. The process must have no other thread yet.
///
/// # Errors
/// The kernel's.
pub fn own_mounts() -> io::Result<()> {
    unshare(libc::CLONE_NEWNS)
}

/// This thread runs on one processor from now on, the last.
///
/// # Errors
/// The kernel's.
pub fn stay_on_one_processor() -> io::Result<()> {
    let last = std::thread::available_parallelism()?.get() - 1;
    // SAFETY: a set of bits, which zeroes are.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the number is one of a processor's.
    unsafe { libc::CPU_SET(last, &mut set) };
    // SAFETY: the set outlives the call, and is as long as is said.
    let result = unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The number of an interface in this network namespace.
///
/// # Errors
/// [`io::ErrorKind::NotFound`], and for a name with a zero in it.
pub fn index(interface: &str) -> io::Result<u32> {
    let name = CString::new(interface)?;
    // SAFETY: a string that ends with a zero and outlives the call.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!("there is no network interface `{interface}`"),
        )),
        index => Ok(index),
    }
}

/// What the interface counts as sent: of a veth, what its other end has taken.
///
/// # Errors
/// Where the interface is not there.
pub fn taken(interface: &str) -> io::Result<u64> {
    let text = std::fs::read_to_string("/proc/thread-self/net/dev")?;
    let line = text.lines().find_map(|line| line.trim().strip_prefix(interface)?.strip_prefix(':'));
    let count = line.and_then(|line| line.split_whitespace().nth(9)?.parse().ok());
    count.ok_or_else(|| io::Error::other(format!("`{interface}` counts nothing")))
}
